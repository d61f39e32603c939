// @ts-check
// The list of messages: the shown path as elements, kept from one drawing to the next, and the scrolling.
import { h } from "../shared/dom.js";
import { DraftPair } from "./drafts.js";
import { MessageView } from "./message.js";

/**
 * @typedef {import("./tree.js").Message} Message
 * @typedef {import("./tree.js").Step} Step
 */

const NEAR_PIXELS = 60;

export class Thread {
  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} scroll the element around it that scrolls
   * @param {HTMLElement} toEnd the button that leads to the end
   * @param {import("./message.js").Acts & {choose: (pair: [Message, Message], choice: 0|1) => void}} acts
   */
  constructor(list, scroll, toEnd, acts) {
    this.list = list;
    this.scroll = scroll;
    this.toEnd = toEnd;
    this.acts = acts;
    /** @type {Map<string, MessageView>} */
    this.views = new Map();
    /** @type {DraftPair|null} */
    this.pair = null;
    /** @type {Set<MessageView>} */
    this.growing = new Set();
    this.frame = 0;
    this.atEnd = true;
    scroll.addEventListener("scroll", () => this.measure(), { passive: true });
    toEnd.addEventListener("click", () => this.goToEnd());
  }

  /** Forget everything: another conversation follows. */
  clear() {
    this.views.clear();
    this.growing.clear();
    this.pair = null;
    this.atEnd = true;
    this.list.replaceChildren();
  }

  /** @param {Step[]} steps the path to show */
  draw(steps) {
    const elements = steps.map((step) => this.element(step));
    if (!steps.at(-1)?.pair) this.pair = null;
    elements.forEach((element, position) => {
      const there = this.list.children[position];
      if (there !== element) this.list.insertBefore(element, there ?? null);
    });
    while (this.list.children.length > elements.length) this.list.lastElementChild?.remove();
    this.follow();
  }

  /**
   * @param {Step} step
   * @returns {HTMLElement}
   */
  element({ message, siblings, pair }) {
    if (!pair) {
      const view = this.view(message);
      view.update(siblings, false);
      return view.element;
    }
    if (this.pair?.views[0].message !== pair[0]) {
      const choose = (/** @type {0|1} */ choice) => this.acts.choose(pair, choice);
      this.pair = new DraftPair([this.view(pair[0]), this.view(pair[1])], choose);
    }
    this.pair.update();
    return this.pair.element;
  }

  /** @param {Message} message */
  view(message) {
    let view = this.views.get(message.id);
    if (view?.message !== message) {
      view = new MessageView(message, this.acts);
      this.views.set(message.id, view);
    }
    return view;
  }

  /**
   * An answer has more text: draw it in the next frame, once, however many pieces came.
   * @param {Message} message
   */
  grow(message) {
    const view = this.views.get(message.id);
    if (!view) return;
    this.growing.add(view);
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      for (const each of this.growing) if (each.message.state === "streaming") each.draw();
      this.growing.clear();
      this.follow();
    });
  }

  /** Note whether the reader is at the end; only then the page follows the text. */
  measure() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroll;
    this.atEnd = scrollHeight - scrollTop - clientHeight < NEAR_PIXELS;
    this.toEnd.hidden = this.atEnd;
  }

  /** Stay at the end if the reader was there. */
  follow() {
    if (this.atEnd) this.scroll.scrollTop = this.scroll.scrollHeight;
    else this.measure();
  }

  /** Go to the end; twice, because messages far away get their real height only when they come near. */
  goToEnd() {
    this.atEnd = true;
    this.follow();
    requestAnimationFrame(() => this.follow());
  }
}

/**
 * The button that leads to the end of the conversation.
 * @param {Node} sign
 */
export function endButton(sign) {
  return h("button", { class: "to-end icon-button", type: "button", "aria-label": "To the end", hidden: true }, sign);
}
