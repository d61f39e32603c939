// @ts-check
// One task on the desk: the prompt, the answers, the ranks, and the state that they share.
import { h, trusted } from "../shared/dom.js";
import { Board } from "./board.js";
import { Card, standing } from "./card.js";
import { guidelinesPanel } from "./guidelines.js";
import { letter, Ranking } from "./ranking.js";

/**
 * @typedef {object} Task
 * @property {string} id
 * @property {{role: string, html: string, content: string}[]} messages
 * @property {import("./card.js").Response[]} responses in the order shown
 * @property {import("./card.js").Flag[]} flags
 */

const ROLE_NAMES = { system: "Instructions", user: "Person", assistant: "Assistant", tool: "Tool" };

export class TaskView {
  /**
   * @param {Task} task
   * @param {import("./ranking.js").State|null} draft
   * @param {(view: TaskView) => void} changed
   */
  constructor(task, draft, changed) {
    this.task = task;
    this.shownAt = performance.now();
    this.ranking = new Ranking(task.responses.length, draft);
    this.onChange = changed;
    this.current = 0;
    const update = () => this.changed();
    this.cards = task.responses.map((response, index) => new Card(index, response, task.flags, this.ranking, update));
    const texts = task.responses.map(({ content }) => content);
    this.board = new Board(this.ranking, texts, (response) => this.focus(response));
    this.guidelines = guidelinesPanel();
    const messages = task.messages.map(({ role, html }) =>
      h(
        "div",
        { class: `prompt-message ${role}` },
        h("h2", {}, ROLE_NAMES[/** @type {keyof typeof ROLE_NAMES} */ (role)] ?? role),
        h("div", { class: "prose" }, trusted(html)),
      ),
    );
    this.prompt = h(
      "section",
      { class: "prompt", "aria-label": "Prompt", "data-testid": "prompt" },
      h("h1", { class: "hidden-text" }, "Rank the answers"),
      messages,
      this.guidelines,
    );
    this.answers = h(
      "section",
      { class: "answers", "aria-label": "Answers" },
      this.cards.map(({ element }) => element),
    );
    this.answers.addEventListener("focusin", (event) => {
      const card = /** @type {HTMLElement} */ (event.target).closest("[data-index]");
      if (card instanceof HTMLElement) this.current = Number(card.dataset.index);
    });
    this.elements = [this.prompt, this.answers, this.board.element];
    this.update();
  }

  /** @returns {Card} the answer that keys act on */
  get card() {
    return this.cards[this.current];
  }

  /** @param {number} index */
  focus(index) {
    this.current = index;
    this.card.element.focus();
  }

  /** @param {-1|1} step */
  go(step) {
    const isOnCard = this.answers.contains(document.activeElement);
    this.focus(isOnCard ? (this.current + step + this.cards.length) % this.cards.length : this.current);
  }

  /** After a change: draw, and tell the page. */
  changed() {
    this.update();
    this.onChange(this);
  }

  update() {
    for (const card of this.cards) card.update();
    this.board.update();
  }

  /** @returns {string} where the current answer stands, for a screen reader */
  get spoken() {
    const rank = this.ranking.state.ranks[this.current];
    const tied = rank === null ? [] : this.ranking.at(rank).filter((other) => other !== this.current);
    return `${letter(this.current)}: ${standing(rank, tied)}`;
  }

  /** @returns {Record<string, unknown>} the answer as the server wants it */
  get answer() {
    const { responses } = this.task;
    const { ratings, notRankable } = this.ranking.state;
    return {
      buckets: notRankable
        ? []
        : this.ranking.buckets.map((bucket) => bucket.map((index) => responses[index].position)),
      ratings: ratings.map((rating, index) => ({ position: responses[index].position, ...rating })),
      not_rankable: notRankable,
      milliseconds: Math.round(performance.now() - this.shownAt),
    };
  }
}
