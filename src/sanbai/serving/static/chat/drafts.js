// @ts-check
// Two drafts of one answer side by side, until one of them is chosen.
import { h } from "../shared/dom.js";

/** @typedef {import("./message.js").MessageView} MessageView */

export class DraftPair {
  /**
   * @param {[MessageView, MessageView]} views
   * @param {(choice: 0|1) => void} choose
   */
  constructor(views, choose) {
    this.views = views;
    this.buttons = [0, 1].map((position) => {
      const act = () => choose(/** @type {0|1} */ (position));
      const key = h("kbd", { "aria-hidden": "true" }, position + 1);
      return h(
        "button",
        { class: "button", type: "button", onclick: act, "data-testid": `choose-${position + 1}` },
        "Choose this one",
        h("span", { class: "hidden-text" }, `: draft ${position + 1}`),
        key,
      );
    });
    const columns = views.map((view, position) =>
      h(
        "section",
        { class: "draft card", "aria-label": `Draft ${position + 1}` },
        h("h2", {}, `Draft ${position + 1}`),
        view.element,
        this.buttons[position],
      ),
    );
    this.element = h(
      "div",
      { class: "pair", role: "group", "aria-label": "Two drafts", tabindex: "-1", "data-testid": "pair" },
      h(
        "p",
        { class: "pair-note" },
        "Two drafts. Which one is better? Your choice is kept, and the talk goes on from it.",
      ),
      columns,
    );
  }

  /** Bring both drafts up to date; the choice opens when both are written. */
  update() {
    for (const view of this.views) view.update([view.message], true);
    for (const button of this.buttons) button.disabled = !this.isReady;
  }

  get isReady() {
    return this.views.every((view) => view.message.state !== "streaming");
  }
}
