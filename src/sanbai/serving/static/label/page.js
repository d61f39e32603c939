// @ts-check
// The labeler's console: one task after another.
import { get, idempotencyKey, post, sentence } from "../shared/api.js";
import { consentBanner, LABEL_TEXT } from "../shared/consent.js";
import { show } from "../shared/dialog.js";
import { byId, fill, h } from "../shared/dom.js";
import { icon } from "../shared/icon.js";
import { notify } from "../shared/notice.js";
import { loadSession, session } from "../shared/session.js";
import { fillTopbar } from "../shared/topbar.js";
import { enableDragging } from "./drag.js";
import { dropDraft, keepDraft, readDraft } from "./draft_store.js";
import { enableKeyboard, keyTable } from "./keyboard.js";
import { showProgress } from "./progress.js";
import { letter } from "./ranking.js";
import { TaskView } from "./task.js";

await loadSession();

const desk = byId("desk");
const bar = byId("desk-bar");
const progress = h("div", { class: "progress", "data-testid": "progress" });
const help = h(
  "button",
  { class: "icon-button help", type: "button", "aria-label": "Keys (?)", onclick: showHelp, "data-testid": "help" },
  icon("help"),
);
const hint = h("p", { class: "hint", role: "status", "data-testid": "hint" });
const undo = h(
  "button",
  { class: "button quiet undo", type: "button", "aria-label": "Undo", onclick: takeBack, "data-testid": "undo" },
  icon("undo"),
  h("span", {}, "Undo"),
);
const notRankable = h("input", { type: "checkbox", "data-testid": "not-rankable" });
const send = h(
  "button",
  { class: "button primary", type: "button", onclick: submit, "data-testid": "submit" },
  "Send",
  h("kbd", { "aria-hidden": "true" }, "⇧ ⏎"),
);

/** @type {TaskView|null} */
let view = null;
let key = "";
let isSending = false;

/** Lease the next task and put it on the desk. */
async function next() {
  view = null;
  bar.hidden = true;
  fill(desk, h("div", { class: "waiting", role: "status", "aria-label": "Loading" }));
  try {
    const [{ task, reason }] = await Promise.all([get("/api/label/next"), refreshProgress()]);
    if (!task) return showEmpty(reason);
    key = idempotencyKey();
    view = new TaskView(task, readDraft(session().name, task.id), changed);
    fill(desk, view.elements);
    bar.hidden = false;
    refresh(view);
    scrollTo(0, 0);
    view.cards[0].element.focus({ preventScroll: true });
  } catch (trouble) {
    showTrouble(sentence(trouble));
  }
}

async function refreshProgress() {
  showProgress(progress, await get("/api/label/progress"));
}

/** @param {TaskView} changedView */
function changed(changedView) {
  key = idempotencyKey();
  keepDraft(session().name, changedView.task.id, changedView.ranking.state);
  byId("announcer").textContent = changedView.spoken;
  refresh(changedView);
}

/** @param {TaskView} current */
function refresh({ ranking }) {
  notRankable.checked = ranking.state.notRankable;
  undo.disabled = ranking.past.length === 0;
  send.disabled = !ranking.isComplete;
  hint.textContent = advice(ranking);
}

/**
 * What is still missing, or worth a second look.
 * @param {import("./ranking.js").Ranking} ranking
 * @returns {string}
 */
function advice({ state, unranked, contradictions }) {
  if (state.notRankable) return "Will be sent as: cannot be ranked.";
  if (unranked.length > 0) return `Not ranked yet: ${unranked.map(letter).join(", ")}`;
  if (contradictions.length === 0) return "Ready to send.";
  const [above, below] = contradictions[0].map(letter);
  return `${above} ranks above ${below} but has the lower quality. Both will be kept as you said them.`;
}

async function submit() {
  if (!view || isSending) return;
  if (!view.ranking.isComplete) {
    notify(`${advice(view.ranking)}. Rank them all, or say that they cannot be ranked.`);
    return;
  }
  // A note is taken over when its field is left; sending from inside it leaves it first.
  if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
  const { task, answer } = view;
  isSending = true;
  try {
    await post(`/api/label/tasks/${task.id}/answer`, { ...answer, idempotency_key: key });
    dropDraft(session().name, task.id);
    await next();
    byId("announcer").textContent = "Kept. The next task is here.";
  } catch (trouble) {
    notify(`${sentence(trouble)} Your ranking is still here.`, { label: "Next task", act: next });
  } finally {
    isSending = false;
  }
}

function takeBack() {
  if (view?.ranking.undo()) view.changed();
}

function showHelp() {
  show("Keys", keyTable(), "help-dialog");
}

/** @param {string|null} reason */
function showEmpty(reason) {
  fill(
    desk,
    h(
      "section",
      { class: "empty", "data-testid": "empty" },
      icon("check"),
      h("h2", {}, "Nothing to rank just now"),
      h("p", {}, sentence(reason || "There is no open task for you.")),
      h("button", { class: "button", type: "button", onclick: next, "data-testid": "look-again" }, "Look again"),
    ),
  );
}

/** @param {string} text */
function showTrouble(text) {
  const again = h(
    "button",
    { class: "button small", type: "button", onclick: next, "data-testid": "retry" },
    "Try again",
  );
  fill(desk, h("div", { class: "trouble", role: "alert" }, h("p", {}, text), again));
}

/** @param {(current: TaskView) => void} act on the task, if there is one */
const withView = (act) => {
  if (view) act(view);
};

/** @param {(current: TaskView) => void} act a change to the current answer */
const change = (act) =>
  withView((current) => {
    act(current);
    current.changed();
  });

notRankable.addEventListener("change", () => change(({ ranking }) => ranking.setNotRankable(notRankable.checked)));
enableDragging(
  desk,
  (response, rank) =>
    change((current) => {
      current.current = response;
      current.ranking.place(response, rank);
    }),
  (isDragging) =>
    withView((current) => {
      current.board.element.classList.toggle("dragging", isDragging);
      current.board.update();
    }),
);
enableKeyboard({
  go: (step) => withView((current) => current.go(step)),
  move: (step) => change(({ ranking, current }) => ranking.move(current, step)),
  place: (rank) => change(({ ranking, current }) => ranking.place(current, rank)),
  rate: (likert) => change(({ ranking, current }) => ranking.rate(current, likert)),
  tie: () =>
    change(({ ranking, current }) => {
      if (!ranking.tie(current)) notify("Rank another answer first; “=” joins its rank.");
    }),
  flags: () => withView((current) => current.card.openFlags()),
  note: () => withView((current) => current.card.openNote()),
  guidelines: () =>
    withView(({ guidelines }) => {
      guidelines.open = !guidelines.open;
    }),
  undo: takeBack,
  notRankable: () => change(({ ranking }) => ranking.setNotRankable(!ranking.state.notRankable)),
  submit,
  help: showHelp,
});

fillTopbar(byId("topbar"), progress, help);
const consent = consentBanner(LABEL_TEXT);
if (consent) desk.before(consent);
fill(bar, undo, h("label", { class: "check" }, notRankable, "Cannot be ranked"), hint, send);
await next();
