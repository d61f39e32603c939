// @ts-check
// The ranks as lanes, best on top, with a chip for each answer; what is not ranked waits below.
import { fill, h } from "../shared/dom.js";
import { icon } from "../shared/icon.js";
import { letter } from "./ranking.js";

const EXCERPT_CHARACTERS = 60;
const MANY_RANKS = 6;

export class Board {
  /**
   * @param {import("./ranking.js").Ranking} ranking
   * @param {string[]} texts the answers, for the excerpts on the chips
   * @param {(response: number) => void} choose go to an answer
   */
  constructor(ranking, texts, choose) {
    this.ranking = ranking;
    this.texts = texts;
    this.choose = choose;
    this.lanes = Array.from({ length: ranking.size }, (_, index) => this.lane(String(index + 1), index + 1));
    this.tray = this.lane("Not ranked yet", 0);
    const style = ranking.size > MANY_RANKS ? "board many" : "board";
    this.element = h(
      "section",
      { class: style, "aria-label": "Ranks", "data-testid": "board" },
      h("p", { class: "board-end" }, "Best"),
      this.lanes.map(({ element }) => element),
      h("p", { class: "board-end" }, "Worst"),
      this.tray.element,
    );
  }

  /**
   * @param {string} name
   * @param {number} rank 0 for the tray
   */
  lane(name, rank) {
    const chips = h("ul", { class: "lane-chips", role: "list" });
    const label = rank ? `Rank ${rank}` : name;
    const element = h(
      "div",
      {
        class: rank ? "lane" : "lane tray",
        role: "group",
        "aria-label": label,
        "data-rank": rank,
        "data-testid": `lane-${rank}`,
      },
      h("span", { class: "lane-name" }, name),
      chips,
    );
    return { element, chips };
  }

  /** Bring the lanes up to date; the chip that had the focus keeps it. */
  update() {
    const focused = /** @type {HTMLElement|null} */ (this.element.querySelector(":focus"))?.dataset.drag;
    this.lanes.forEach(({ chips }, index) => this.fillLane(chips, this.ranking.at(index + 1)));
    this.fillLane(this.tray.chips, this.ranking.unranked);
    this.tray.element.hidden = this.ranking.unranked.length === 0 && !this.element.classList.contains("dragging");
    this.element.classList.toggle("asleep", this.ranking.state.notRankable);
    if (focused !== undefined)
      /** @type {HTMLElement|null} */ (this.element.querySelector(`[data-drag="${focused}"]`))?.focus();
  }

  /**
   * @param {Element} chips
   * @param {number[]} responses
   */
  fillLane(chips, responses) {
    const chip = (/** @type {number} */ response) => {
      const excerpt = this.texts[response].replace(/\s+/g, " ").slice(0, EXCERPT_CHARACTERS);
      const attributes = {
        class: "answer-chip",
        type: "button",
        "data-drag": response,
        "data-testid": `chip-${letter(response)}`,
      };
      return h(
        "li",
        {},
        h(
          "button",
          { ...attributes, onclick: () => this.choose(response) },
          icon("grip"),
          h("strong", {}, letter(response)),
          h("span", {}, excerpt),
        ),
      );
    };
    fill(chips, responses.map(chip));
  }
}
