// @ts-check
// The field where people write: Enter sends, Shift+Enter breaks the line, and the button stops what is being written.
import { h } from "../shared/dom.js";
import { icon } from "../shared/icon.js";

const TWO_DRAFTS_KEY = "sanbai.two-drafts";
const UNSENT_KEY = "sanbai.unsent";

export class Composer {
  /**
   * @param {object} acts
   * @param {(content: string) => void} acts.send
   * @param {() => void} acts.stop
   */
  constructor({ send, stop }) {
    this.onSend = send;
    this.isAnswering = false;
    this.field = h("textarea", {
      id: "composer-text",
      rows: 1,
      placeholder: "Write a message",
      "aria-label": "Write a message",
      "data-testid": "composer",
      enterkeyhint: "send",
    });
    this.sendButton = iconButton("send", "Send", "send", "send-button");
    this.stopButton = iconButton("stop", "Stop writing (Esc)", "stop", "send-button stop-button");
    this.stopButton.addEventListener("click", stop);
    this.draftsButton = h(
      "button",
      { class: "button quiet small drafts-button", type: "button", "data-testid": "two-drafts" },
      icon("columns"),
      "Two drafts",
    );
    this.draftsButton.title = "Let it write two drafts and choose the better one";
    this.twoDrafts = localStorage.getItem(TWO_DRAFTS_KEY) === "yes";
    this.draftsButton.addEventListener("click", () => this.toggleDrafts());
    this.element = h(
      "form",
      { class: "composer", "aria-label": "New message" },
      this.field,
      h(
        "div",
        { class: "composer-row" },
        this.draftsButton,
        h("span", { class: "space" }),
        this.stopButton,
        this.sendButton,
      ),
    );
    this.element.addEventListener("submit", (event) => this.send(event));
    this.element.addEventListener("click", (event) => event.target === this.element && this.field.focus());
    this.field.addEventListener("keydown", (event) => {
      // While an input method composes a word, Enter belongs to it.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.send(event);
    });
    this.field.addEventListener("input", () => this.refresh());
    this.place = "";
    this.refresh();
  }

  /**
   * Go to another conversation: what was written there and not sent is still there.
   * @param {string|null} conversation
   */
  moveTo(conversation) {
    this.place = conversation ?? "new";
    this.field.value = sessionStorage.getItem(`${UNSENT_KEY}.${this.place}`) ?? "";
    this.refresh();
  }

  get numDrafts() {
    return this.twoDrafts ? 2 : 1;
  }

  toggleDrafts() {
    this.twoDrafts = !this.twoDrafts;
    localStorage.setItem(TWO_DRAFTS_KEY, this.twoDrafts ? "yes" : "no");
    this.refresh();
  }

  /** @param {Event} event */
  send(event) {
    event.preventDefault();
    const content = this.field.value.trim();
    if (!content || this.isAnswering) return;
    this.field.value = "";
    this.refresh();
    this.onSend(content);
  }

  /** @param {boolean} isAnswering */
  setAnswering(isAnswering) {
    this.isAnswering = isAnswering;
    this.refresh();
  }

  refresh() {
    this.sendButton.disabled = !this.field.value.trim();
    this.sendButton.hidden = this.isAnswering;
    this.stopButton.hidden = !this.isAnswering;
    this.draftsButton.setAttribute("aria-pressed", String(this.twoDrafts));
    if (this.place) sessionStorage.setItem(`${UNSENT_KEY}.${this.place}`, this.field.value);
    // Browsers that know `field-sizing` grow the field by themselves.
    if (!CSS.supports("field-sizing", "content")) {
      this.field.style.height = "auto";
      this.field.style.height = `${this.field.scrollHeight}px`;
    }
  }
}

/**
 * @param {"send"|"stop"} name
 * @param {string} label
 * @param {string} testid
 * @param {string} style
 */
function iconButton(name, label, testid, style) {
  const type = name === "send" ? "submit" : "button";
  return h("button", { class: style, type, "aria-label": label, title: label, "data-testid": testid }, icon(name));
}
