// @ts-check
// Times as people say them.

const DAY_MILLISECONDS = 24 * 60 * 60 * 1000;

/**
 * A time the server wrote: ISO 8601, or seconds since 1970.
 * @param {string|number|null|undefined} value
 * @returns {Date|null}
 */
export function readTime(value) {
  if (value === null || value === undefined || value === "") return null;
  const date = new Date(typeof value === "number" ? value * 1000 : value);
  return Number.isNaN(date.getTime()) ? null : date;
}

/**
 * The heading under which something of this time is filed.
 * @param {Date|null} date
 * @param {Date} now
 * @returns {string}
 */
export function period(date, now) {
  if (!date) return "Earlier";
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  const days = Math.ceil((midnight - date.getTime()) / DAY_MILLISECONDS);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days <= 7) return "Last seven days";
  if (days <= 30) return "Last thirty days";
  return "Earlier";
}

/**
 * Date and time, short, in the reader's own manner.
 * @param {string|number|null|undefined} value
 * @returns {string}
 */
export function shortTime(value) {
  const date = readTime(value);
  return date ? date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }) : "";
}
