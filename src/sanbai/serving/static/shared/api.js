// @ts-check
// Requests to the server: JSON in and out, the CSRF header on writes, and every failure as one readable sentence.

let csrfToken = "";

/** A request that did not succeed; `message` is meant for the reader. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status HTTP status, 0 where no answer came
   * @param {string} code the server's code for the case, or ""
   */
  constructor(message, status, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** @param {string} token the value that GET /api/me hands out */
export function useCsrfToken(token) {
  csrfToken = token;
}

/**
 * Send one request; resolves to the decoded JSON.
 * @param {"GET"|"POST"|"PATCH"|"DELETE"} method
 * @param {string} path
 * @param {unknown} [body]
 * @returns {Promise<any>}
 */
async function send(method, path, body) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-CSRF-Token"] = csrfToken;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new ApiError("The server does not answer. Is it still running?", 0);
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  if (response.status === 401 && location.pathname !== "/sign-in") signInFirst();
  const { message, code } = await readTrouble(response);
  throw new ApiError(message, response.status, code);
}

/**
 * @param {Response} response
 * @returns {Promise<{message: string, code: string}>}
 */
async function readTrouble(response) {
  try {
    const { error } = await response.json();
    if (error?.message) return { message: error.message, code: error.code ?? "" };
  } catch {
    // Not the envelope: the status has to say it.
  }
  return { message: `The server could not do this (status ${response.status}).`, code: "" };
}

/** Leave for the sign-in page and come back here afterwards. */
function signInFirst() {
  location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
}

/** @param {string} path */
export const get = (path) => send("GET", path);

/** @param {string} path @param {unknown} [body] */
export const post = (path, body = {}) => send("POST", path, body);

/** @param {string} path @param {unknown} body */
export const patch = (path, body) => send("PATCH", path, body);

/** @param {string} path */
export const remove = (path) => send("DELETE", path);

/**
 * A key that makes a repeated request count once.
 * @returns {string}
 */
export function idempotencyKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The sentence to show for anything that was thrown.
 * @param {unknown} trouble
 * @returns {string}
 */
export function sentence(trouble) {
  const text = trouble instanceof Error ? trouble.message : String(trouble);
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
