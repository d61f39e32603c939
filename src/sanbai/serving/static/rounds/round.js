// @ts-check
// One round on a page: the verdict first, then what it learnt from, what it measured and what it made.
import { h } from "../shared/dom.js";
import { icon } from "../shared/icon.js";
import { shortTime } from "../shared/time.js";
import { metricsTable } from "./metrics.js";
import { servedMark, statePill, stateText } from "./state.js";
import { verdictPanel } from "./verdict.js";

/**
 * @typedef {{name: string, kind: string, parent: string|null, artifact: string, round?: number, served?: boolean}} Model
 *
 * @typedef {object} Round
 * @property {number} n
 * @property {string} state
 * @property {string|null} model
 * @property {string|number|null} opened
 * @property {boolean} served
 * @property {boolean} [can_promote]
 * @property {Record<string, any>} data
 * @property {Model[]} models
 * @property {{columns: string[], rows: import("./metrics.js").Row[]}|null} [metrics]
 * @property {{name: string, title: string}[]} [plots]
 * @property {import("./verdict.js").Verdict|null} verdict
 * @property {{state: string, at: string|number, actor: string, reason: string}[]} events
 * @property {boolean} [report]
 */

/** @type {Record<string, string>} */
const KIND_NAMES = { imported: "Imported", base: "Base", supervised: "Supervised", reward: "Reward model", policy: "Policy" };

/**
 * @param {Round} round
 * @param {Node[]} controls
 * @returns {HTMLElement}
 */
export function roundPage(round, controls) {
  const { n, state, model, opened, served, metrics, plots, verdict } = round;
  const detail = [model, shortTime(opened)].filter(Boolean).join(" · ");
  return h(
    "div",
    { class: "stack" },
    h(
      "header",
      { class: "sheet-head" },
      h("a", { class: "back", href: "/rounds" }, icon("back"), "All rounds"),
      h("h1", {}, `Round ${n}`, " ", statePill(state), " ", served && servedMark()),
      h("p", { class: "lead" }, detail),
      h("div", { class: "controls" }, controls, round.report && reportLink(n)),
    ),
    verdict && verdictPanel(verdict),
    section("What it learnt from", dataTiles(round.data)),
    metrics && metrics.rows.length > 0 && section("What it measured", metricsTable(metrics)),
    plots && plots.length > 0 && section("Curves", plotGrid(n, plots)),
    round.models.length > 0 && section("What it made", modelList(round.models)),
    section("What happened", eventList(round.events)),
  );
}

/** @param {string} title @param {Node} body */
function section(title, body) {
  return h("section", { class: "part", "aria-label": title }, h("h2", {}, title), body);
}

/** @param {number} n */
function reportLink(n) {
  return h(
    "a",
    { class: "button", href: `/api/rounds/${n}/report`, "data-testid": "report" },
    icon("report"),
    "Full report",
  );
}

/** @param {Record<string, any>} data */
function dataTiles(data) {
  const tiles = [
    ["Rankings by people", data.rankings?.person],
    ["Rankings, simulated", data.rankings?.simulated],
    ["Rankings, a model's", data.rankings?.model],
    ["Thumbs up", data.thumbs?.up],
    ["Thumbs down", data.thumbs?.down],
    ["Draft choices", data.draft_choices],
    ["Conversations", data.conversations],
    ["Demonstrations", data.demonstrations],
  ].filter(([, count]) => typeof count === "number");
  const tile = (/** @type {any[]} */ [name, count]) =>
    h("div", { class: "tile card" }, h("dd", {}, count.toLocaleString()), h("dt", {}, name));
  return h("dl", { class: "tiles", "data-testid": "data" }, tiles.map(tile));
}

/** @param {number} n @param {{name: string, title: string}[]} plots */
function plotGrid(n, plots) {
  const figure = (/** @type {{name: string, title: string}} */ { name, title }) => {
    const source = `/api/rounds/${n}/plots/${encodeURIComponent(name)}.svg`;
    const image = h("img", { src: source, alt: title, loading: "lazy", "data-testid": `plot-${name}` });
    return h("figure", { class: "plot card" }, h("a", { href: source }, image), h("figcaption", {}, title));
  };
  return h("div", { class: "plots" }, plots.map(figure));
}

/** @param {Model[]} models */
function modelList(models) {
  const item = (/** @type {Model} */ model) =>
    h(
      "li",
      { class: "model", "data-testid": `model-${model.name}` },
      h("strong", {}, model.name),
      h("span", { class: "pill" }, KIND_NAMES[model.kind] ?? model.kind),
      model.served && servedMark(),
      h(
        "span",
        { class: "lineage" },
        model.parent ? `from ${model.parent}` : "from random weights",
        model.artifact && h("code", {}, model.artifact),
      ),
    );
  return h("ul", { class: "models card", role: "list", "data-testid": "models" }, models.map(item));
}

/** @param {Round["events"]} events */
function eventList(events) {
  const item = (/** @type {Round["events"][number]} */ { state, at, actor, reason }) =>
    h(
      "li",
      {},
      h("span", { class: "event-state" }, stateText(state)),
      h("span", { class: "interval" }, [shortTime(at), actor && `by ${actor}`].filter(Boolean).join(" · ")),
      reason && h("q", {}, reason),
    );
  return h("ol", { class: "events", role: "list", "data-testid": "events" }, events.map(item));
}
