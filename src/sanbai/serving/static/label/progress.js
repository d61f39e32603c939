// @ts-check
// How far the work has come, and how well people agree.
import { fill, h } from "../shared/dom.js";

/**
 * @typedef {object} Progress
 * @property {number} answered by everybody
 * @property {number} open
 * @property {number} mine
 * @property {{mean: number, low: number, high: number, n: number}|null} agreement shares of pairs, with a 95 % interval
 */

/**
 * @param {HTMLElement} element
 * @param {Progress} progress
 */
export function showProgress(element, { answered, open, mine, agreement }) {
  const percent = (/** @type {number} */ share) => Math.round(100 * share);
  const total = answered + open;
  const text = agreement && `${percent(agreement.mean)} % agreement`;
  const detail =
    agreement &&
    `You agree with the others in ${percent(agreement.mean)} % of pairs ` +
      `(95 % interval ${percent(agreement.low)} to ${percent(agreement.high)}, ${agreement.n} pairs).`;
  fill(
    element,
    h("span", { class: "mine" }, `${mine} by you`),
    h("progress", { max: Math.max(1, total), value: answered, "aria-label": "Answered tasks" }),
    h("span", { class: "open" }, `${open} open`),
    text && h("span", { class: "pill", title: detail, "aria-label": detail }, text),
  );
}
