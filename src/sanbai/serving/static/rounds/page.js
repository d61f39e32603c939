// @ts-check
// The rounds: all of them, or one (`?n=2`).
import { get, sentence } from "../shared/api.js";
import { byId, fill, h } from "../shared/dom.js";
import { loadSession, session } from "../shared/session.js";
import { fillTopbar } from "../shared/topbar.js";
import { promoteButton, rollbackButton } from "./actions.js";
import { roundList } from "./list.js";
import { roundPage } from "./round.js";
import { isMoving } from "./state.js";

const REFRESH_MILLISECONDS = 15_000;

await loadSession();

const sheet = byId("sheet");
const number = new URLSearchParams(location.search).get("n");
const isAdmin = session().role === "admin";
let shown = "";

/** Load and show; a page that has not changed is left as it is. */
async function show() {
  try {
    const found = await get(number === null ? "/api/rounds" : `/api/rounds/${encodeURIComponent(number)}`);
    const text = JSON.stringify(found);
    if (text !== shown) {
      shown = text;
      fill(sheet, number === null ? list(found) : round(found));
    }
    const states =
      number === null ? found.rounds.map((/** @type {{state: string}} */ { state }) => state) : [found.state];
    if (states.some(isMoving)) setTimeout(show, REFRESH_MILLISECONDS);
  } catch (trouble) {
    const again = h("button", { class: "button small", type: "button", onclick: show }, "Try again");
    fill(
      sheet,
      h("div", { class: "trouble", role: "alert", "data-testid": "trouble" }, h("p", {}, sentence(trouble)), again),
    );
  }
}

/** @param {Parameters<typeof roundList>[0]} listing */
function list(listing) {
  document.title = "Rounds · Sanbai";
  return roundList(listing, isAdmin && listing.served ? rollbackButton(show) : null);
}

/** @param {import("./round.js").Round} found */
function round(found) {
  document.title = `Round ${found.n} · Sanbai`;
  const controls = [];
  if (isAdmin && found.model && !found.served && found.can_promote !== false) controls.push(promoteButton(found, show));
  if (isAdmin && found.served) controls.push(rollbackButton(show));
  return roundPage(found, controls);
}

fillTopbar(byId("topbar"));
fill(sheet, h("div", { class: "waiting", role: "status", "aria-label": "Loading" }));
await show();
