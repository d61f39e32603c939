// @ts-check
// Menus and popovers beside the button that opens them, on the browser's own popover: a click outside or Escape closes.
import { h } from "./dom.js";
import { icon } from "./icon.js";

const GAP = 6;

/**
 * Show content beside a button; opening again closes. The content is made anew each time.
 * @param {HTMLElement} button
 * @param {HTMLElement} content
 */
export function popUp(button, content) {
  content.classList.add("menu");
  content.setAttribute("popover", "auto");
  document.body.append(content);
  content.addEventListener("toggle", (event) => {
    if (/** @type {ToggleEvent} */ (event).newState === "open") return;
    content.remove();
    button.setAttribute("aria-expanded", "false");
    if (document.activeElement === document.body || content.contains(document.activeElement)) button.focus();
  });
  content.showPopover();
  button.setAttribute("aria-expanded", "true");
  place(button, content);
  /** @type {HTMLElement|null} */ (content.querySelector("button, a, input"))?.focus();
}

/**
 * A menu of actions, walked with the arrow keys.
 * @param {HTMLElement} button
 * @param {{label: string, icon: import("./icon.js").IconName, act: () => void, danger?: boolean}[]} actions
 */
export function openMenu(button, actions) {
  const items = actions.map((action) => {
    const choose = () => {
      menu.hidePopover();
      action.act();
    };
    const style = action.danger ? "menu-item danger" : "menu-item";
    return h(
      "button",
      { class: style, role: "menuitem", type: "button", onclick: choose },
      icon(action.icon),
      action.label,
    );
  });
  const menu = h("div", { role: "menu" }, items);
  menu.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const here = items.findIndex((item) => item === document.activeElement);
    items[(here + step + items.length) % items.length].focus();
  });
  popUp(button, menu);
}

/**
 * Put the content under the button, or above where there is no room, inside the window.
 * @param {HTMLElement} button
 * @param {HTMLElement} content
 */
function place(button, content) {
  const anchor = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = content;
  const below = anchor.bottom + GAP;
  const top = below + height <= innerHeight - GAP ? below : Math.max(GAP, anchor.top - GAP - height);
  const left = Math.min(Math.max(GAP, anchor.left), innerWidth - width - GAP);
  content.style.top = `${top}px`;
  content.style.left = `${left}px`;
}
