// @ts-check
// The evaluation as a table: a row for each measure, a column for each model, every number with its interval.
import { h } from "../shared/dom.js";
import { intervalText, number, whisker } from "./interval.js";

/**
 * @typedef {import("./interval.js").Interval} Interval
 * @typedef {object} Row
 * @property {string} name
 * @property {string} text
 * @property {import("./interval.js").Unit} unit
 * @property {"higher"|"lower"} better
 * @property {(Interval|null)[]} values
 */

/** @type {Record<string, string>} */
const COLUMN_NAMES = {
  base: "Base",
  supervised: "Supervised",
  ppo: "Practised (PPO)",
  served: "Served before",
  candidate: "This round",
};

/**
 * @param {{columns: string[], rows: Row[]}} metrics
 * @returns {HTMLElement}
 */
export function metricsTable({ columns, rows }) {
  const head = columns.map((name) => h("th", { scope: "col" }, COLUMN_NAMES[name] ?? name));
  return h(
    "div",
    { class: "table-frame", tabindex: "0", role: "region", "aria-label": "Measures" },
    h(
      "table",
      { class: "metrics", "data-testid": "metrics" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Measure"), head)),
      h("tbody", {}, rows.map(tableRow)),
    ),
  );
}

/** @param {Row} row */
function tableRow(row) {
  const scale = scaleOf(row);
  const cells = row.values.map((value) =>
    value
      ? h(
          "td",
          { title: intervalText(value, row.unit) },
          h("span", { class: "value" }, number(value.mean, row.unit)),
          whisker(value, scale),
          h(
            "span",
            { class: "interval" },
            `${number(value.low, row.unit).replace(" %", "")} – ${number(value.high, row.unit)}`,
          ),
        )
      : h("td", {}, h("span", { class: "interval" }, "not measured")),
  );
  const hint = h("span", { class: "interval" }, row.better === "lower" ? "lower is better" : "higher is better");
  return h("tr", { "data-testid": `metric-${row.name}` }, h("th", { scope: "row" }, row.text, hint), cells);
}

/** @param {Row} row @returns {{from: number, to: number}} shares from 0 to 1, all else as wide as its values */
function scaleOf({ unit, values }) {
  if (unit === "share") return { from: 0, to: 1 };
  const present = values.filter((value) => value !== null);
  const from = Math.min(...present.map(({ low }) => low));
  const to = Math.max(...present.map(({ high }) => high));
  const margin = (to - from) * 0.1;
  return { from: from - margin, to: to + margin };
}
