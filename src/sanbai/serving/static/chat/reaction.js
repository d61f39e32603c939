// @ts-check
// Why a thumb went up or down: one reason as a chip, and a comment in one's own words.
import { ask } from "../shared/dialog.js";
import { h } from "../shared/dom.js";

/** @typedef {{value: 1|-1, reason: string, comment: string}} Reaction */

const REASONS = {
  up: [
    ["correct", "It is correct"],
    ["helpful", "It helped me"],
    ["honest", "Honest about what it does not know"],
    ["well_written", "Well written"],
    ["other", "Something else"],
  ],
  down: [
    ["wrong", "It is not true"],
    ["ignored_request", "It did not do what I asked"],
    ["harmful", "It could do harm"],
    ["needless_refusal", "It refused without need"],
    ["unclear", "Hard to read or too long"],
    ["other", "Something else"],
  ],
};

/**
 * Ask for the reason of a thumb; null when the reader would rather not say.
 * @param {Reaction} reaction
 * @returns {Promise<Reaction|null>}
 */
export async function askReason({ value, reason, comment }) {
  const chips = REASONS[value === 1 ? "up" : "down"].map(([code, text]) =>
    h(
      "label",
      { class: "chip" },
      h("input", {
        type: "radio",
        name: "reason",
        value: code,
        checked: code === reason,
        "data-testid": `reason-${code}`,
      }),
      text,
    ),
  );
  const data = await ask({
    title: value === 1 ? "What was good about it?" : "What was wrong with it?",
    body: [
      h("fieldset", {}, h("legend", { class: "hidden-text" }, "Reason"), h("div", { class: "chips" }, chips)),
      h(
        "label",
        { class: "field" },
        "In your own words, if you like",
        h(
          "textarea",
          { class: "input", name: "comment", rows: 3, maxlength: 4000, "data-testid": "reason-comment" },
          comment,
        ),
      ),
    ],
    accept: "Send",
    dismiss: "Skip",
    testid: "reason-dialog",
  });
  return data && { value, reason: String(data.get("reason") ?? ""), comment: String(data.get("comment") ?? "").trim() };
}
