// @ts-check
// Half-done rankings in this browser, so that a closed page loses nothing. They hold ranks and ratings, no texts.

const PREFIX = "sanbai.label";
const MOST_KEPT = 20;

/** @typedef {import("./ranking.js").State} State */

/** @param {string} account @param {string} task */
const keyOf = (account, task) => `${PREFIX}.${account}.${task}`;

/**
 * @param {string} account
 * @param {string} task
 * @returns {State|null}
 */
export function readDraft(account, task) {
  try {
    return JSON.parse(localStorage.getItem(keyOf(account, task)) ?? "null")?.state ?? null;
  } catch {
    return null;
  }
}

/**
 * @param {string} account
 * @param {string} task
 * @param {State} state
 */
export function keepDraft(account, task, state) {
  localStorage.setItem(keyOf(account, task), JSON.stringify({ kept: Date.now(), state }));
  const keys = Object.keys(localStorage).filter((key) => key.startsWith(`${PREFIX}.`));
  const age = (/** @type {string} */ key) => JSON.parse(localStorage.getItem(key) ?? "{}").kept ?? 0;
  const newestFirst = keys.sort((left, right) => age(right) - age(left));
  for (const key of newestFirst.slice(MOST_KEPT)) localStorage.removeItem(key);
}

/** @param {string} account @param {string} task */
export function dropDraft(account, task) {
  localStorage.removeItem(keyOf(account, task));
}
