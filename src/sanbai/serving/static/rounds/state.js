// @ts-check
// A round's states in plain words.
import { h } from "../shared/dom.js";

/** @type {Record<string, {text: string, style: string}>} */
const STATES = {
  open: { text: "Collecting", style: "" },
  snapshot: { text: "Freezing the data", style: "warn" },
  training: { text: "Training", style: "warn" },
  evaluating: { text: "Evaluating", style: "warn" },
  gated: { text: "Waiting for a decision", style: "warn" },
  serving: { text: "Promoted", style: "good" },
  refused: { text: "Refused by the gate", style: "bad" },
  rolled_back: { text: "Rolled back", style: "" },
};

/** @param {string} state */
export const stateText = (state) => STATES[state]?.text ?? state;

/** @param {string} state */
export function statePill(state) {
  return h("span", { class: `pill ${STATES[state]?.style ?? ""}`, "data-testid": "state" }, stateText(state));
}

/** The mark of the round whose model answers now. */
export function servedMark() {
  return h("span", { class: "pill strong", "data-testid": "served-mark" }, "Serves now");
}

/** @param {string} state @returns {boolean} whether it will change by itself */
export const isMoving = (state) => ["snapshot", "training", "evaluating"].includes(state);
