// @ts-check
// One message on the page. It is drawn anew when its state changes; while it grows only its text is.
import { fill, h } from "../shared/dom.js";
import { icon } from "../shared/icon.js";
import { drawBlocks, drawTail, frameCode } from "./blocks.js";
import { copyButton } from "./copy.js";

/** @typedef {import("./tree.js").Message} Message */

/**
 * @typedef {object} Acts what a reader can do to a message
 * @property {(message: Message) => void} regenerate
 * @property {(message: Message) => void} resend
 * @property {(message: Message, content: string) => void} edit
 * @property {(message: Message, value: 1|-1) => void} react
 * @property {(id: string) => void} showSibling
 */

const STATE_NOTES = { stopped: "Stopped here.", interrupted: "The server went away before the end.", failed: "" };

export class MessageView {
  /**
   * @param {Message} message
   * @param {Acts} acts
   */
  constructor(message, acts) {
    this.message = message;
    this.acts = acts;
    this.signature = "";
    this.body = h("div", { class: message.role === "user" ? "bubble" : "prose", "data-testid": "body" });
    this.foot = h("div", { class: "message-foot" });
    const who = message.role === "user" ? "You" : "Sanbai";
    this.element = h(
      "article",
      { class: `message ${message.role}`, "aria-label": who, "data-testid": message.role, "data-id": message.id },
      this.body,
      this.foot,
    );
  }

  /**
   * Bring the element up to date; does nothing where nothing changed.
   * @param {Message[]} siblings
   * @param {boolean} isDraft whether it waits for a choice beside another
   */
  update(siblings, isDraft) {
    const { message } = this;
    const { state, html, feedback, trouble } = message;
    const signature = JSON.stringify([state, html, feedback, trouble, isDraft, siblings.map(({ id }) => id)]);
    if (signature === this.signature) return;
    this.signature = signature;
    this.element.classList.toggle("streaming", state === "streaming");
    this.element.setAttribute("aria-busy", String(state === "streaming"));
    if (message.role === "user") this.body.textContent = message.content;
    else this.draw();
    fill(this.foot, this.trouble(), state !== "streaming" && !isDraft && this.actions(siblings));
  }

  /** Draw the text as far as it has come. */
  draw() {
    const { html, tail, state } = this.message;
    this.body.querySelectorAll(".tail").forEach((tail) => tail.remove());
    drawBlocks(this.body, html);
    if (state === "streaming") drawTail(this.body, tail ?? "");
    else frameCode(this.body, (text) => copyButton(() => text, "Copy code"));
  }

  /** @returns {HTMLElement|null} what went wrong, and how to try again */
  trouble() {
    const { state, trouble } = this.message;
    const text = trouble || STATE_NOTES[/** @type {keyof typeof STATE_NOTES} */ (state)];
    if (state === "unsent" || state === "failed" || state === "interrupted") {
      const again = () => (state === "unsent" ? this.acts.resend(this.message) : this.acts.regenerate(this.message));
      const button = h(
        "button",
        { class: "button small", type: "button", onclick: again, "data-testid": "retry" },
        "Try again",
      );
      return h(
        "div",
        { class: "trouble", role: "alert" },
        h("p", {}, text || "This answer could not be written."),
        button,
      );
    }
    return text ? h("p", { class: "state-note" }, text) : null;
  }

  /**
   * The row of small buttons under a message.
   * @param {Message[]} siblings
   * @returns {HTMLElement|null}
   */
  actions(siblings) {
    const { message } = this;
    if (message.state === "sending" || message.state === "unsent") return null;
    const row = h("div", { class: "actions", role: "group", "aria-label": "About this message" });
    if (siblings.length > 1) row.append(this.siblingArrows(siblings));
    row.append(
      copyButton(() => (message.role === "user" ? message.content : message.content || this.body.innerText), "Copy"),
    );
    if (message.role === "user") {
      row.append(button("pencil", "Edit", "edit", () => this.edit()));
      return row;
    }
    row.append(
      this.thumb(1, "up", "Good answer"),
      this.thumb(-1, "down", "Bad answer"),
      button("again", "Write another answer", "regenerate", () => this.acts.regenerate(message)),
    );
    if (message.model) row.append(h("span", { class: "signature", "data-testid": "signature" }, signatureOf(message)));
    return row;
  }

  /**
   * @param {1|-1} value
   * @param {"up"|"down"} name
   * @param {string} label
   */
  thumb(value, name, label) {
    const thumb = button(name, label, `thumb-${name}`, () => this.acts.react(this.message, value));
    thumb.setAttribute("aria-pressed", String(this.message.feedback?.value === value));
    return thumb;
  }

  /** @param {Message[]} siblings */
  siblingArrows(siblings) {
    const here = siblings.indexOf(this.message);
    const arrow = (/** @type {"left"|"right"} */ name, /** @type {string} */ label, /** @type {number} */ to) => {
      const element = button(name, label, `sibling-${name}`, () => this.acts.showSibling(siblings[to].id));
      element.disabled = to < 0 || to >= siblings.length;
      return element;
    };
    return h(
      "span",
      { class: "siblings", "data-testid": "siblings" },
      arrow("left", "Earlier version", here - 1),
      h("span", { "aria-label": `Version ${here + 1} of ${siblings.length}` }, `${here + 1}/${siblings.length}`),
      arrow("right", "Later version", here + 1),
    );
  }

  /** Put a field in place of one's own message; sending it makes a sibling. */
  edit() {
    const { message, body, foot } = this;
    const field = h("textarea", { class: "input", "aria-label": "Your message", "data-testid": "edit-text", rows: 3 });
    field.value = message.content;
    const cancel = () => {
      this.element.classList.remove("editing");
      this.signature = "";
      this.acts.showSibling(message.id);
    };
    const send = () => {
      const content = field.value.trim();
      cancel();
      if (content && content !== message.content) this.acts.edit(message, content);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      } else if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      }
    });
    this.element.classList.add("editing");
    fill(body, field);
    fill(
      foot,
      h(
        "div",
        { class: "dialog-buttons" },
        h("button", { class: "button small quiet", type: "button", onclick: cancel }, "Cancel"),
        h(
          "button",
          { class: "button small primary", type: "button", onclick: send, "data-testid": "edit-send" },
          "Send",
        ),
      ),
    );
    field.focus();
  }
}

/**
 * @param {import("../shared/icon.js").IconName} name
 * @param {string} label
 * @param {string} testid
 * @param {() => void} act
 */
function button(name, label, testid, act) {
  const attributes = { class: "icon-button", type: "button", "aria-label": label, title: label, "data-testid": testid };
  return h("button", { ...attributes, onclick: act }, icon(name));
}

/** @param {Message} message */
function signatureOf({ model, round }) {
  return round ? `${model} · round ${round}` : String(model);
}
