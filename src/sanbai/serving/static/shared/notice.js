// @ts-check
// Short notices at the foot of the page, read out politely; they leave by themselves.
import { h } from "./dom.js";

const SHOWN_MILLISECONDS = 6000;

/** @type {HTMLElement|null} */
let shelf = null;

/**
 * @param {string} text
 * @param {{label: string, act: () => void}} [action] one thing to do about it
 */
export function notify(text, action) {
  if (!shelf) {
    shelf = h("div", { class: "notices", role: "status", "data-testid": "notices" });
    document.body.append(shelf);
  }
  for (const other of shelf.children) if (other.firstChild?.textContent === text) other.remove();
  const notice = h("div", { class: "notice" }, text);
  if (action) {
    const act = () => {
      notice.remove();
      action.act();
    };
    notice.append(h("button", { class: "button small", type: "button", onclick: act }, action.label));
  }
  shelf.append(notice);
  setTimeout(() => notice.remove(), SHOWN_MILLISECONDS);
}
