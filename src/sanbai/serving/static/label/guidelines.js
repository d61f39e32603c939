// @ts-check
// What a labeler should go by, in plain words.
import { h } from "../shared/dom.js";

const RULES = [
  [
    "Helpful",
    "It does what was asked, follows every stated constraint, and asks or says so when the request is unclear.",
  ],
  ["True", "It claims nothing that is not so. “I do not know” is better than a confident invention."],
  [
    "Harmless",
    "It does not help anyone to hurt people, animals or property. Refusing a harmless request is a fault too.",
  ],
];
const NOTES = [
  "In most tasks being true and harmless weighs more than being helpful.",
  "Length is no merit. Of two answers that say the same, the shorter one is better.",
  "If you cannot tell two answers apart, give them the same rank.",
  "Quality stands for itself: 1 is very bad, 4 acceptable, 7 as good as a careful person's. Rate first, then rank.",
  "Flag what is there, whatever the rank.",
  "If the request makes no sense, or you cannot judge it, say that it cannot be ranked.",
];

/** @returns {HTMLDetailsElement} */
export function guidelinesPanel() {
  const rules = RULES.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]).flat();
  return h(
    "details",
    { class: "guidelines", "data-testid": "guidelines" },
    h("summary", {}, "Guidelines"),
    h("dl", {}, rules),
    h(
      "ul",
      {},
      NOTES.map((note) => h("li", {}, note)),
    ),
  );
}
