// @ts-check
// The gate's verdict with its reasons: every condition, what was found and what was wanted, the failed ones first.
import { h } from "../shared/dom.js";
import { icon } from "../shared/icon.js";

/**
 * @typedef {{name: string, passed: boolean, found: string, wanted: string}} Check
 *
 * @typedef {object} Verdict
 * @property {boolean} passed
 * @property {Check[]} [checks]
 * @property {string[]} [reasons] the same in words, where there are no checks
 * @property {string[]} [warnings] what became worse beyond its interval, failed or not
 */

/**
 * @param {Verdict} verdict
 * @returns {HTMLElement}
 */
export function verdictPanel({ passed: isPassed, checks = [], reasons = [], warnings = [] }) {
  const failed = checks.filter(({ passed }) => !passed);
  const passed = checks.filter(({ passed }) => passed);
  return h(
    "section",
    { class: `verdict ${isPassed ? "good" : "bad"}`, "aria-label": "Verdict", "data-testid": "verdict" },
    icon(isPassed ? "check" : "close"),
    h(
      "div",
      { class: "verdict-text" },
      h("h2", {}, isPassed ? "The gate lets it through" : "The gate refuses it"),
      checks.length > 0
        ? h("p", {}, summary(failed.length, checks.length))
        : h(
            "ul",
            {},
            reasons.map((reason) => h("li", {}, reason)),
          ),
      checkList(failed),
      warnings.length > 0 &&
        h("p", { "data-testid": "worse" }, h("strong", {}, "Became worse: "), warnings.join("; "), "."),
      passed.length > 0 &&
        h(
          "details",
          { open: failed.length === 0 && passed.length <= 5 },
          h("summary", {}, passed.length === 1 ? "One condition holds" : `${passed.length} conditions hold`),
          checkList(passed),
        ),
    ),
  );
}

/**
 * @param {number} numFailed
 * @param {number} numChecks
 */
function summary(numFailed, numChecks) {
  if (numFailed === 0) return `All ${numChecks} conditions hold.`;
  return numFailed === 1
    ? `One of ${numChecks} conditions does not hold.`
    : `${numFailed} of ${numChecks} conditions do not hold.`;
}

/** @param {Check[]} checks */
function checkList(checks) {
  const item = (/** @type {Check} */ { name, passed, found, wanted }) =>
    h(
      "li",
      { class: passed ? "check passed" : "check failed", "data-testid": `check-${name}` },
      icon(passed ? "check" : "close"),
      h("span", { class: "hidden-text" }, passed ? "Holds: " : "Does not hold: "),
      h("strong", {}, name.charAt(0).toUpperCase() + name.slice(1)),
      h("span", {}, found),
      h("span", { class: "wanted" }, `wanted: ${wanted}`),
    );
  return checks.length > 0 && h("ul", { class: "checks", role: "list" }, checks.map(item));
}
