// @ts-check
// The door: name and password, or a one-time token and then a password of one's own.
import { get, post, sentence, useCsrfToken } from "../shared/api.js";
import { byId, fill, h } from "../shared/dom.js";
import { seal } from "../shared/icon.js";

const query = new URLSearchParams(location.search);

/** @returns {string} the page to go on to: a path on this server, nothing else */
function destination() {
  const next = query.get("next") ?? "/";
  return /^\/(?![/\\])/.test(next) && !next.startsWith("/sign-in") ? next : "/";
}

/**
 * @param {string} title
 * @param {string} text
 * @param {HTMLElement[]} fields
 * @param {string} accept
 * @param {(data: FormData) => Promise<void>} act
 */
function showForm(title, text, fields, accept, act) {
  const trouble = h("p", { class: "trouble", role: "alert", hidden: true, "data-testid": "trouble" });
  const button = h("button", { class: "button primary", "data-testid": "accept" }, accept);
  const form = h("form", {}, fields, trouble, button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    trouble.hidden = true;
    button.disabled = true;
    try {
      await act(new FormData(form));
    } catch (error) {
      trouble.textContent = sentence(error);
      trouble.hidden = false;
      button.disabled = false;
    }
  });
  fill(byId("gate"), h("div", { class: "card gate-card" }, seal(), h("h1", {}, title), h("p", {}, text), form));
  form.querySelector("input")?.focus();
}

/**
 * @param {string} label
 * @param {Record<string, unknown>} attributes
 */
function field(label, attributes) {
  return h("label", { class: "field" }, label, h("input", { class: "input", required: true, ...attributes }));
}

function askPassword() {
  showForm(
    "Welcome to Sanbai",
    "Sign in to go on.",
    [
      field("Name", { name: "name", autocomplete: "username", autocapitalize: "none", "data-testid": "name" }),
      field("Password", {
        name: "password",
        type: "password",
        autocomplete: "current-password",
        "data-testid": "password",
      }),
    ],
    "Sign in",
    async (data) => {
      const account = await post("/api/sign-in", { name: data.get("name"), password: data.get("password") });
      useCsrfToken(account.csrf);
      if (account.must_set_password) choosePassword(account.name);
      else location.replace(destination());
    },
  );
}

/** @param {string} name */
function choosePassword(name) {
  const rule = { type: "password", autocomplete: "new-password", minlength: 8 };
  showForm(
    `Hello, ${name}`,
    "Choose a password for the next time. Eight characters or more; a short sentence does well.",
    [
      h("input", { type: "text", name: "name", value: name, autocomplete: "username", hidden: true }),
      field("New password", { name: "password", "data-testid": "new-password", ...rule }),
      field("The same once more", { name: "again", "data-testid": "new-password-again", ...rule }),
    ],
    "Save and go on",
    async (data) => {
      if (data.get("password") !== data.get("again")) throw new Error("The two passwords are not the same.");
      await post("/api/me/password", { password: data.get("password") });
      location.replace(destination());
    },
  );
}

/** @param {string} token */
async function spendToken(token) {
  // The address is cleaned first, so that a spent token stays in no history or bookmark.
  history.replaceState(null, "", "/sign-in");
  try {
    const account = await post("/api/sign-in", { token });
    useCsrfToken(account.csrf);
    if (account.must_set_password) choosePassword(account.name);
    else location.replace(destination());
  } catch (error) {
    askPassword();
    const trouble = /** @type {HTMLElement} */ (document.querySelector(".trouble"));
    trouble.textContent = sentence(error);
    trouble.hidden = false;
  }
}

const token = query.get("token");
if (token) {
  await spendToken(token);
} else if (query.get("change") === "password") {
  const account = await get("/api/me").catch(() => null);
  if (account) {
    useCsrfToken(account.csrf);
    choosePassword(account.name);
  } else askPassword();
} else askPassword();
