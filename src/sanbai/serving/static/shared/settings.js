// @ts-check
// The account's popover: consent, two drafts, password, sign-out, and the way to the other pages.
import { sentence } from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icon.js";
import { popUp } from "./menu.js";
import { notify } from "./notice.js";
import { session, setConsent, signOut } from "./session.js";

const ROLE_NAMES = { admin: "Administrator", labeler: "Labeler", user: "Member" };

/**
 * The button that shows the account's name and opens the popover.
 * @returns {HTMLButtonElement}
 */
export function accountButton() {
  const { name } = session();
  const button = h(
    "button",
    {
      class: "account-button",
      type: "button",
      "aria-haspopup": "dialog",
      "aria-expanded": "false",
      "data-testid": "account",
    },
    h("span", { class: "avatar", "aria-hidden": "true" }, name.slice(0, 1)),
    h("span", { class: "account-name" }, name),
    h("span", { class: "hidden-text" }, ": settings"),
  );
  button.addEventListener("click", () => popUp(button, panel()));
  return button;
}

function panel() {
  const { name, role } = session();
  return h(
    "div",
    { class: "settings", role: "dialog", "aria-label": "Settings", "data-testid": "settings" },
    h("header", {}, h("strong", {}, name), h("span", {}, ROLE_NAMES[role] ?? role)),
    h("hr"),
    consentSwitch(),
    h("hr"),
    h("a", { class: "menu-item", href: "/sign-in?change=password" }, icon("key"), "Change password"),
    h(
      "button",
      { class: "menu-item", type: "button", onclick: leave, "data-testid": "sign-out" },
      icon("leave"),
      "Sign out",
    ),
  );
}

function consentSwitch() {
  const box = h("input", {
    type: "checkbox",
    role: "switch",
    checked: session().consent === true,
    "data-testid": "consent-switch",
  });
  box.addEventListener("change", async () => {
    try {
      await setConsent(box.checked);
    } catch (trouble) {
      box.checked = !box.checked;
      notify(sentence(trouble));
    }
  });
  const hint = "Your chats, thumbs and choices may train the next models. Off: every later round leaves them out.";
  return h("label", { class: "switch" }, h("span", {}, "Learn from me", h("span", { class: "hint" }, hint)), box);
}

async function leave() {
  try {
    await signOut();
  } catch (trouble) {
    notify(sentence(trouble));
  }
}
