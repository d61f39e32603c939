// @ts-check
// Who is signed in.
import { get, post, useCsrfToken } from "./api.js";

/**
 * @typedef {object} Session
 * @property {string} name
 * @property {"admin"|"labeler"|"user"} role
 * @property {boolean|null} consent null: not asked yet
 * @property {boolean} must_set_password
 */

/** @type {Session|null} */
let current = null;

/**
 * The signed-in account; where there is none the page leaves for the sign-in page.
 * @returns {Promise<Session>}
 */
export async function loadSession() {
  const { csrf, ...account } = await get("/api/me");
  useCsrfToken(csrf);
  current = account;
  return account;
}

/** @returns {Session} */
export function session() {
  if (!current) throw new Error("the session has not been loaded");
  return current;
}

/**
 * Say whether this account's words may be used for training.
 * @param {boolean} granted
 */
export async function setConsent(granted) {
  await post("/api/me/consent", { granted });
  session().consent = granted;
  document.dispatchEvent(new CustomEvent("consent", { detail: granted }));
}

/** End the session and go to the sign-in page. */
export async function signOut() {
  await post("/api/sign-out");
  location.assign("/sign-in");
}
