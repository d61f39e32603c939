// @ts-check
// The chat page: the sidebar, the conversation and the field, put together.
import { ApiError, get, sentence } from "../shared/api.js";
import { CHAT_TEXT, consentBanner } from "../shared/consent.js";
import { isCovered } from "../shared/dialog.js";
import { byId, fill, h, takesText } from "../shared/dom.js";
import { icon } from "../shared/icon.js";
import { notify } from "../shared/notice.js";
import { loadSession } from "../shared/session.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { askReason } from "./reaction.js";
import { Sidebar } from "./sidebar.js";
import { endButton, Thread } from "./thread.js";
import { welcomePanel } from "./welcome.js";

/** @typedef {import("./tree.js").Message} Message */

await loadSession();

const room = byId("scroll");
const narrow = matchMedia("(max-width: 860px)");
const title = h("h1", { class: "room-title", "data-testid": "room-title" }, "New chat");
const servedModel = h("span", { class: "pill", hidden: true, "data-testid": "served-model" });
const toEnd = endButton(icon("below"));

let served = "";
/** @type {Conversation} */
let conversation = newConversation();

const composer = new Composer({ send: (content) => say(content), stop: () => attempt(conversation.stop()) });
const sidebar = new Sidebar(byId("sidebar"), {
  open: (id) => open(id),
  renamed: ({ id, title: name }) => {
    if (id !== conversation.id) return;
    conversation.title = name;
    draw();
  },
  removed: (id) => id === conversation.id && open(null),
  close: () => showSidebar(false),
});
const thread = new Thread(byId("thread"), room, toEnd, {
  regenerate: (message) => attempt(conversation.regenerate(message)),
  resend: (message) => attempt(conversation.resend(message, composer.numDrafts)),
  edit: (message, content) => say(content, message),
  react: (message, value) => attempt(react(message, value)),
  choose: (pair, choice) => attempt(conversation.choose(pair, choice).then(() => composer.field.focus())),
  showSibling: (id) => {
    conversation.tree.show(id);
    draw();
  },
});

/** @returns {Conversation} */
function newConversation() {
  /** @type {Conversation} */
  const fresh = new Conversation({
    changed: () => fresh === conversation && draw(),
    grew: (message) => fresh === conversation && thread.grow(message),
    finished: (message) => fresh === conversation && finished(message),
    opened: (id) => {
      history.replaceState(null, "", `/?c=${id}`);
      sidebar.setCurrent(id);
      composer.place = id;
    },
  });
  return fresh;
}

/** Draw the conversation as it now is. */
function draw() {
  const steps = conversation.tree.path();
  const isEmpty = steps.length === 0;
  document.body.classList.toggle("empty-room", isEmpty);
  if (!isEmpty) byId("welcome")?.replaceChildren();
  thread.draw(steps);
  composer.setAnswering(conversation.isAnswering);
  title.textContent = conversation.title || "New chat";
  document.title = conversation.title ? `${conversation.title} · Sanbai` : "Sanbai";
}

/**
 * @param {string|null} id
 * @param {{remember?: boolean}} [options] whether the address is new
 */
async function open(id, { remember = true } = {}) {
  conversation.leave();
  conversation = newConversation();
  thread.clear();
  fill(byId("welcome"));
  if (remember) history.pushState(null, "", id ? `/?c=${id}` : "/");
  if (narrow.matches) showSidebar(false);
  sidebar.setCurrent(id);
  composer.moveTo(id);
  const opened = conversation;
  try {
    if (id) {
      await conversation.load(id);
      thread.goToEnd();
    } else {
      draw();
      const panel = await welcomePanel((prompt) => say(prompt));
      if (opened === conversation && !conversation.tree.leaf()) fill(byId("welcome"), panel);
    }
  } catch (trouble) {
    if (trouble instanceof ApiError && trouble.status === 404) await open(null, { remember: true });
    notify(sentence(trouble));
  }
  if (!narrow.matches) composer.field.focus();
}

/**
 * @param {string} content
 * @param {Message} [beside] the message of one's own that this one replaces
 */
async function say(content, beside) {
  thread.atEnd = true;
  await conversation.say(content, { drafts: composer.numDrafts, beside });
  await attempt(sidebar.refresh());
}

/** @param {Message} message */
async function finished(message) {
  byId("announcer").textContent = message.state === "failed" ? "The answer failed." : "The answer is written.";
  const pair = thread.pair;
  if (pair?.isReady && !composer.field.value) pair.element.focus({ preventScroll: true });
  if (message.model && message.model !== served) attempt(showServedModel());
  await attempt(sidebar.refresh());
  const entry = sidebar.entries.find(({ id }) => id === conversation.id);
  if (entry && entry.title !== conversation.title) {
    conversation.title = entry.title;
    draw();
  }
}

/**
 * The thumb is stored at once; its reason follows if the reader gives one.
 * @param {Message} message
 * @param {1|-1} value
 */
async function react(message, value) {
  const before = message.feedback?.value === value ? message.feedback : { value, reason: "", comment: "" };
  if (before !== message.feedback) await conversation.react(message, before);
  const reaction = await askReason(before);
  if (!reaction || (!reaction.reason && !reaction.comment)) return;
  await conversation.react(message, reaction);
  notify("Thank you. It is kept with the answer.");
}

/** @param {Promise<unknown>} work whose failure the reader should see */
async function attempt(work) {
  try {
    await work;
  } catch (trouble) {
    notify(sentence(trouble));
  }
}

/** @param {boolean} isShown */
function showSidebar(isShown) {
  document.body.classList.toggle("without-sidebar", !isShown);
  byId("scrim").hidden = !(isShown && narrow.matches);
  byId("sidebar").inert = !isShown;
}

async function showServedModel() {
  const { served: name, models } = await get("/api/models");
  served = name;
  const model = models.find((/** @type {{name: string}} */ { name }) => name === served);
  const round = model?.round ? ` · round ${model.round}` : "";
  servedModel.textContent = served ? served + round : "No model is served";
  servedModel.hidden = false;
}

document.addEventListener("keydown", (event) => {
  if (isCovered() || event.defaultPrevented) return;
  if (event.key === "Escape") {
    if (narrow.matches && !byId("scrim").hidden) showSidebar(false);
    else if (conversation.isAnswering) attempt(conversation.stop());
  } else if ((event.key === "1" || event.key === "2") && thread.pair?.isReady && !takesText(event.target)) {
    thread.pair.buttons[Number(event.key) - 1].click();
  }
});
window.addEventListener("popstate", () => open(new URLSearchParams(location.search).get("c"), { remember: false }));
byId("scrim").addEventListener("click", () => showSidebar(false));
narrow.addEventListener("change", () => showSidebar(!narrow.matches));

const show = h(
  "button",
  {
    class: "icon-button show-sidebar",
    type: "button",
    "aria-label": "Show the sidebar",
    "data-testid": "show-sidebar",
  },
  icon("sidebar"),
);
show.addEventListener("click", () => showSidebar(true));
fill(byId("room-bar"), show, title, h("span", { class: "space" }), servedModel);
byId("thread").before(h("div", { id: "welcome" }));
fill(
  byId("foot"),
  toEnd,
  consentBanner(CHAT_TEXT),
  composer.element,
  h("p", { class: "caution" }, "It can be wrong. Check what matters."),
);
showSidebar(!narrow.matches);
await Promise.all([
  attempt(sidebar.refresh()),
  attempt(showServedModel()),
  open(new URLSearchParams(location.search).get("c"), { remember: false }),
]);
