// @ts-check
// The ways between the pages, as far as the account's role opens them, and the bar that holds them on the consoles.
import { h } from "./dom.js";
import { seal } from "./icon.js";
import { session } from "./session.js";
import { accountButton } from "./settings.js";

const PAGES = [
  { path: "/", name: "Chat", roles: ["admin", "labeler", "user"] },
  { path: "/label", name: "Label", roles: ["admin", "labeler"] },
  { path: "/rounds", name: "Rounds", roles: ["admin", "labeler", "user"] },
];

/**
 * Links to the pages that this account may open.
 * @returns {HTMLElement}
 */
export function pageLinks() {
  const pages = PAGES.filter((page) => page.roles.includes(session().role));
  const link = (/** @type {typeof PAGES[number]} */ page) =>
    h(
      "a",
      { class: "nav-link", href: page.path, "aria-current": page.path === location.pathname ? "page" : null },
      page.name,
    );
  return h("nav", { "aria-label": "Pages" }, pages.map(link));
}

/**
 * Seal and name, leading home.
 * @returns {HTMLElement}
 */
export function brand() {
  return h("a", { class: "brand", href: "/", "aria-label": "Sanbai" }, seal(), h("span", { class: "word" }, "Sanbai"));
}

/**
 * Fill a page's bar.
 * @param {HTMLElement} bar
 * @param {...Node} extra what the page itself shows at the right
 */
export function fillTopbar(bar, ...extra) {
  bar.replaceChildren(brand(), pageLinks(), h("span", { class: "space" }), ...extra, accountButton());
}
