// @ts-check
// One answer to be judged: its text, its rank and quality, flags and a note.
import { fill, h, trusted } from "../shared/dom.js";
import { icon } from "../shared/icon.js";
import { BEST_QUALITY, letter } from "./ranking.js";
import { Scale } from "./scale.js";

/**
 * @typedef {{position: number, content: string, html: string}} Response
 * @typedef {{name: string, text: string}} Flag
 */

export class Card {
  /**
   * @param {number} index its place among the answers shown
   * @param {Response} response
   * @param {Flag[]} flags
   * @param {import("./ranking.js").Ranking} ranking
   * @param {() => void} changed called after every change
   */
  constructor(index, response, flags, ranking, changed) {
    this.index = index;
    this.ranking = ranking;
    const name = letter(index);
    const act = (/** @type {() => void} */ change) => {
      change();
      changed();
    };
    this.rank = new Scale({
      name: `rank-${name}`,
      label: "Rank",
      most: ranking.size,
      hint: "1 is best",
      act: (rank) => act(() => ranking.place(index, rank)),
    });
    this.quality = new Scale({
      name: `quality-${name}`,
      label: "Quality",
      most: BEST_QUALITY,
      hint: "1 is very bad, 7 is very good",
      act: (likert) => act(() => ranking.rate(index, likert)),
    });
    this.flags = flags.map((flag) => {
      const box = h("input", { type: "checkbox", value: flag.name, "data-testid": `flag-${name}-${flag.name}` });
      box.addEventListener("change", () => act(() => ranking.flag(index, flag.name, box.checked)));
      return { box, element: h("label", { class: "chip" }, box, flag.text) };
    });
    this.note = h("textarea", { class: "input", rows: 2, maxlength: 2000, "data-testid": `note-${name}` });
    this.note.addEventListener("change", () => act(() => ranking.note(index, this.note.value)));
    this.count = h("span", { class: "pill accent", hidden: true });
    this.details = h(
      "details",
      { class: "flags" },
      h("summary", { "data-testid": `flags-${name}` }, icon("flag"), "Flags and note", this.count),
      h(
        "fieldset",
        {},
        h("legend", { class: "hidden-text" }, `Flags of answer ${name}`),
        h(
          "div",
          { class: "chips" },
          this.flags.map(({ element }) => element),
        ),
      ),
      h("label", { class: "field" }, "Note", this.note),
    );
    this.standing = h("span", { class: "pill", "data-testid": `standing-${name}` });
    this.grip = h(
      "span",
      { class: "grip", "data-drag": index, "data-testid": `grip-${name}`, title: "Drag into a rank" },
      icon("grip"),
    );
    this.element = h(
      "article",
      {
        class: "answer card",
        tabindex: "0",
        "aria-label": `Answer ${name}`,
        "data-index": index,
        "data-testid": `answer-${name}`,
      },
      h("header", {}, h("h2", { class: "letter" }, name), this.standing, h("span", { class: "space" }), this.grip),
      h("div", { class: "prose" }, trusted(response.html)),
      h("div", { class: "scales" }, this.rank.element, this.quality.element),
      this.details,
    );
  }

  /** Bring the card up to date with the ranking. */
  update() {
    const { ranks, ratings, notRankable } = this.ranking.state;
    const rank = ranks[this.index];
    const { likert, flags, note } = ratings[this.index];
    this.rank.show(rank);
    this.quality.show(likert);
    for (const { box } of this.flags) box.checked = flags.includes(box.value);
    if (document.activeElement !== this.note) this.note.value = note;
    const tied = rank === null ? [] : this.ranking.at(rank).filter((other) => other !== this.index);
    fill(this.standing, notRankable ? "—" : standing(rank, tied));
    this.standing.classList.toggle("accent", rank !== null && !notRankable);
    const marks = flags.length + (note ? 1 : 0);
    this.count.textContent = String(marks);
    this.count.hidden = marks === 0;
  }

  /** Open the flags and go there. */
  openFlags() {
    this.details.open = !this.details.open;
    if (this.details.open) this.flags[0]?.box.focus();
    else this.element.focus();
  }

  /** Go to the note. */
  openNote() {
    this.details.open = true;
    this.note.focus();
  }
}

/**
 * @param {number|null} rank
 * @param {number[]} tied the answers that share the rank
 * @returns {string}
 */
export function standing(rank, tied) {
  if (rank === null) return "not ranked yet";
  return tied.length ? `rank ${rank}, tied with ${tied.map(letter).join(", ")}` : `rank ${rank}`;
}
