// @ts-check
// The list of conversations: by time, searched by title, renamed and deleted in place.
import { get, patch, remove, sentence } from "../shared/api.js";
import { ask } from "../shared/dialog.js";
import { fill, h } from "../shared/dom.js";
import { icon } from "../shared/icon.js";
import { openMenu } from "../shared/menu.js";
import { notify } from "../shared/notice.js";
import { accountButton } from "../shared/settings.js";
import { period, readTime } from "../shared/time.js";
import { brand, pageLinks } from "../shared/topbar.js";

/** @typedef {{id: string, title: string, updated: string|number}} Entry */

const PAGE_SIZE = 50;

export class Sidebar {
  /**
   * @param {HTMLElement} element
   * @param {object} acts
   * @param {(id: string|null) => void} acts.open a conversation, or a new one
   * @param {(entry: Entry) => void} acts.renamed
   * @param {(id: string) => void} acts.removed
   * @param {() => void} acts.close hide the sidebar
   */
  constructor(element, acts) {
    this.acts = acts;
    /** @type {Entry[]} */
    this.entries = [];
    this.hasMore = false;
    /** @type {string|null} */
    this.current = null;
    this.search = h("input", {
      class: "input",
      type: "search",
      placeholder: "Search titles",
      "aria-label": "Search titles",
    });
    this.search.dataset.testid = "search";
    this.search.addEventListener("input", () => this.find());
    this.list = h("nav", {
      class: "conversations",
      "aria-label": "Your conversations",
      "data-testid": "conversations",
    });
    const hide = h(
      "button",
      { class: "icon-button", type: "button", "aria-label": "Hide the sidebar", onclick: acts.close },
      icon("sidebar"),
    );
    const fresh = h(
      "button",
      { class: "button new-chat", type: "button", onclick: () => acts.open(null), "data-testid": "new-chat" },
      icon("plus"),
      "New chat",
    );
    fill(
      element,
      h("div", { class: "sidebar-head" }, brand(), hide),
      fresh,
      h("div", { class: "search" }, icon("search"), this.search),
      this.list,
      h("div", { class: "sidebar-foot" }, pageLinks(), accountButton()),
    );
  }

  /** Load the newest conversations again. */
  async refresh() {
    const { conversations, more } = await get(`/api/conversations?limit=${PAGE_SIZE}`);
    const fresh = new Set(conversations.map((/** @type {Entry} */ { id }) => id));
    const older = this.entries.slice(PAGE_SIZE).filter(({ id }) => !fresh.has(id));
    this.entries = [...conversations, ...older];
    if (!older.length) this.hasMore = Boolean(more);
    this.draw();
  }

  async loadMore() {
    const last = this.entries.at(-1);
    const before = last ? `&before=${encodeURIComponent(last.id)}` : "";
    const { conversations, more } = await get(`/api/conversations?limit=${PAGE_SIZE}${before}`);
    this.entries.push(...conversations);
    this.hasMore = Boolean(more) && conversations.length > 0;
    this.draw();
  }

  /** Search what is here at once, then the older pages as they come. */
  async find() {
    this.draw();
    const sought = this.search.value;
    while (sought && this.hasMore && sought === this.search.value) await this.loadMore();
  }

  /** @param {string|null} id the conversation that is open */
  setCurrent(id) {
    this.current = id;
    this.draw();
  }

  draw() {
    const sought = this.search.value.trim().toLocaleLowerCase();
    const found = this.entries.filter(({ title }) => title.toLocaleLowerCase().includes(sought));
    const now = new Date();
    /** @type {Map<string, Entry[]>} */
    const groups = new Map();
    for (const entry of found) {
      const name = period(readTime(entry.updated), now);
      groups.set(name, [...(groups.get(name) ?? []), entry]);
    }
    const more = h(
      "button",
      { class: "button quiet small", type: "button", onclick: () => this.loadMore() },
      "Show more",
    );
    fill(
      this.list,
      [...groups]
        .map(([name, entries]) => [
          h("h2", {}, name),
          h(
            "ul",
            { role: "list" },
            entries.map((entry) => this.item(entry)),
          ),
        ])
        .flat(),
      this.hasMore && !sought && more,
      !found.length && h("p", { class: "none" }, sought ? "No title matches." : "Your conversations will appear here."),
    );
  }

  /** @param {Entry} entry */
  item(entry) {
    const title = entry.title || "New chat";
    const open = (/** @type {MouseEvent} */ event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.acts.open(entry.id);
    };
    const dots = h(
      "button",
      {
        class: "icon-button",
        type: "button",
        "aria-label": `More about ${title}`,
        "aria-haspopup": "menu",
        "aria-expanded": "false",
        "data-testid": "conversation-menu",
      },
      icon("dots"),
    );
    dots.addEventListener("click", () =>
      openMenu(dots, [
        { label: "Rename", icon: "pencil", act: () => this.rename(entry) },
        { label: "Delete", icon: "trash", act: () => this.delete(entry), danger: true },
      ]),
    );
    const current = entry.id === this.current ? "page" : null;
    const link = h("a", { href: `/?c=${entry.id}`, title, onclick: open, "aria-current": current }, title);
    return h("li", { class: "conversation", "data-testid": "conversation" }, link, dots);
  }

  /** @param {Entry} entry */
  async rename(entry) {
    const field = h("input", {
      class: "input",
      name: "title",
      value: entry.title,
      required: true,
      maxlength: 200,
      "data-testid": "title",
    });
    const data = await ask({
      title: "Rename this conversation",
      body: [h("label", { class: "field" }, "Title", field)],
      accept: "Rename",
      testid: "rename-dialog",
    });
    const title = String(data?.get("title") ?? "").trim();
    if (!title) return;
    try {
      await patch(`/api/conversations/${entry.id}`, { title });
      entry.title = title;
      this.acts.renamed(entry);
      this.draw();
    } catch (trouble) {
      notify(sentence(trouble));
    }
  }

  /** @param {Entry} entry */
  async delete(entry) {
    const answer = await ask({
      title: "Delete this conversation?",
      body: [
        h(
          "p",
          { class: "text" },
          `“${entry.title || "New chat"}” is erased from the server, and no later round learns from it.`,
        ),
      ],
      accept: "Delete",
      danger: true,
      testid: "delete-dialog",
    });
    if (!answer) return;
    try {
      await remove(`/api/conversations/${entry.id}`);
      this.entries = this.entries.filter(({ id }) => id !== entry.id);
      this.acts.removed(entry.id);
      this.draw();
    } catch (trouble) {
      notify(sentence(trouble));
    }
  }
}
