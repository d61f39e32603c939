// @ts-check
// A measured value with its 95 % interval: as a number, and as a small picture.
import { h } from "../shared/dom.js";

/**
 * @typedef {{mean: number, low: number, high: number, n?: number}} Interval
 * @typedef {"share"|"number"|"bits"} Unit
 */

/**
 * @param {number} value
 * @param {Unit} unit
 */
export function number(value, unit) {
  const text = unit === "share" ? `${(100 * value).toFixed(1)} %` : value.toFixed(unit === "bits" ? 3 : 2);
  return text.replace("-", "−");
}

/**
 * @param {Interval} interval
 * @param {Unit} unit
 */
export function intervalText({ low, high, n }, unit) {
  const range =
    unit === "share"
      ? `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)} %`
      : `${number(low, unit)} to ${number(high, unit)}`;
  return n ? `95 % interval ${range}, n = ${n}` : `95 % interval ${range}`;
}

/**
 * A dot for the mean on a line from low to high, on a scale from `from` to `to`, with an optional mark.
 * @param {Interval} interval
 * @param {{from: number, to: number, mark?: number}} scale
 */
export function whisker({ mean, low, high }, { from, to, mark }) {
  const place = (/** @type {number} */ value) => Math.min(100, Math.max(0, (100 * (value - from)) / (to - from || 1)));
  const range = h("span", { class: "whisker-range" });
  range.style.left = `${place(low)}%`;
  range.style.right = `${100 - place(high)}%`;
  const dot = h("span", { class: "whisker-dot" });
  dot.style.left = `${place(mean)}%`;
  const line = h("span", { class: "whisker", "aria-hidden": "true" }, range, dot);
  if (mark !== undefined) {
    const tick = h("span", { class: "whisker-mark" });
    tick.style.left = `${place(mark)}%`;
    line.prepend(tick);
  }
  return line;
}
