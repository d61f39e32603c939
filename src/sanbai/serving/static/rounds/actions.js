// @ts-check
// What an administrator decides: put a round's model into service, overrule the gate with a reason, or go back.
import { ApiError, post, sentence } from "../shared/api.js";
import { ask } from "../shared/dialog.js";
import { h } from "../shared/dom.js";
import { icon } from "../shared/icon.js";
import { notify } from "../shared/notice.js";

/**
 * @param {{n: number, model: string|null, verdict: {passed: boolean}|null}} round
 * @param {() => void} done
 */
export function promoteButton(round, done) {
  const isRefused = round.verdict?.passed === false;
  const act = () => attempt(() => promote(round, isRefused, done));
  const style = isRefused ? "button danger" : "button primary";
  return h(
    "button",
    { class: style, type: "button", onclick: act, "data-testid": "promote" },
    isRefused ? "Promote all the same…" : "Promote",
  );
}

/** @param {() => void} done */
export function rollbackButton(done) {
  const act = () => attempt(() => rollBack(done));
  return h(
    "button",
    { class: "button", type: "button", onclick: act, "data-testid": "rollback" },
    icon("undo"),
    "Roll back",
  );
}

/**
 * @param {{n: number, model: string|null}} round
 * @param {boolean} needsReason
 * @param {() => void} done
 */
async function promote({ n, model }, needsReason, done) {
  const reasonField = h(
    "label",
    { class: "field" },
    "Why do you overrule the gate?",
    h("textarea", { class: "input", name: "reason", rows: 3, required: true, "data-testid": "override-reason" }),
  );
  const text = needsReason
    ? `The gate refused round ${n}. You may promote ${model} all the same; your reason stays on record.`
    : `${model} will answer from now on. Answers that are being written are finished by the model before.`;
  const data = await ask({
    title: needsReason ? "Overrule the gate?" : `Promote round ${n}?`,
    body: [h("p", { class: "text" }, text), ...(needsReason ? [reasonField] : [])],
    accept: needsReason ? "Overrule and promote" : "Promote",
    danger: needsReason,
    testid: "promote-dialog",
  });
  if (!data) return;
  const reason = String(data.get("reason") ?? "").trim();
  try {
    await post(`/api/rounds/${n}/promote`, reason ? { override_reason: reason } : {});
  } catch (trouble) {
    const isRefused = trouble instanceof ApiError && trouble.code === "override_required" && !needsReason;
    if (!isRefused) throw trouble;
    await promote({ n, model }, true, done);
    return;
  }
  notify(`${model} answers now.`);
  done();
}

/** @param {() => void} done */
async function rollBack(done) {
  const data = await ask({
    title: "Roll back?",
    body: [
      h(
        "p",
        { class: "text" },
        "The model that served before this one answers again at once. The round is marked as rolled back; " +
          "nothing is lost, and it can be promoted again.",
      ),
    ],
    accept: "Roll back",
    danger: true,
    testid: "rollback-dialog",
  });
  if (!data) return;
  await post("/api/rounds/rollback");
  notify("Rolled back.");
  done();
}

/** @param {() => Promise<void>} act */
async function attempt(act) {
  try {
    await act();
  } catch (trouble) {
    notify(sentence(trouble));
  }
}
