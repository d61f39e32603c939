// @ts-check
// All rounds, the newest first.
import { h } from "../shared/dom.js";
import { shortTime } from "../shared/time.js";
import { intervalText, number, whisker } from "./interval.js";
import { servedMark, statePill } from "./state.js";

/**
 * @typedef {object} RoundEntry
 * @property {number} n
 * @property {string} state
 * @property {string|null} model
 * @property {string|number|null} opened
 * @property {boolean} [served]
 * @property {import("./interval.js").Interval|null} [win_rate] against the model before
 */

/**
 * @param {{served: string|null, rounds: RoundEntry[]}} listing
 * @param {Node|null} rollback the control that brings the last model back
 * @returns {HTMLElement}
 */
export function roundList({ served, rounds }, rollback) {
  const newest = [...rounds].sort((left, right) => right.n - left.n);
  const item = (/** @type {RoundEntry} */ round) =>
    h(
      "li",
      {},
      h(
        "a",
        { class: "round card", href: `/rounds?n=${round.n}`, "data-testid": `round-${round.n}` },
        h("span", { class: "round-number" }, String(round.n)),
        h(
          "span",
          { class: "round-main" },
          h(
            "span",
            { class: "round-name" },
            `Round ${round.n}`,
            " ",
            statePill(round.state),
            " ",
            (round.served ?? round.model === served) && round.model && servedMark(),
          ),
          h("span", { class: "round-detail" }, [round.model, shortTime(round.opened)].filter(Boolean).join(" · ")),
        ),
        round.win_rate &&
          h(
            "span",
            { class: "round-wins" },
            whisker(round.win_rate, { from: 0.3, to: 0.7, mark: 0.5 }),
            h(
              "span",
              { class: "round-detail", title: intervalText(round.win_rate, "share") },
              `wins ${number(round.win_rate.mean, "share")}`,
            ),
          ),
      ),
    );
  const nothing = h(
    "div",
    { class: "empty", "data-testid": "empty" },
    h("h2", {}, "No round yet"),
    h("p", {}, "The first round opens when a model has been made from rankings: `sanbai round run`."),
  );
  return h(
    "div",
    { class: "stack" },
    h(
      "header",
      { class: "sheet-head" },
      h("h1", {}, "Rounds"),
      h("p", { class: "lead" }, served ? `${served} answers now.` : "No model answers yet."),
      rollback,
    ),
    newest.length ? h("ol", { class: "round-list", role: "list" }, newest.map(item)) : nothing,
  );
}
