// @ts-check
// The console by keyboard alone: which key means what, in one table that the help shows too.
import { isCovered } from "../shared/dialog.js";
import { h, takesText } from "../shared/dom.js";

/**
 * @typedef {object} Commands
 * @property {(step: -1|1) => void} go to the answer before or after
 * @property {(step: -1|1) => void} move one rank better or worse
 * @property {(rank: number|null) => void} place
 * @property {(likert: number) => void} rate
 * @property {() => void} tie
 * @property {() => void} flags
 * @property {() => void} note
 * @property {() => void} guidelines
 * @property {() => void} undo
 * @property {() => void} notRankable
 * @property {() => void} submit
 * @property {() => void} help
 */

const HELP = [
  [["←", "→"], "the answer before, the answer after (or Tab)"],
  [["↑", "↓"], "one rank better, one rank worse"],
  [["1", "…", "9"], "put it into this rank; the same rank twice is a tie"],
  [["="], "tie it with the answer ranked before"],
  [["0"], "take it out of the ranking"],
  [["Shift", "1", "…", "7"], "quality, 7 is best"],
  [["F"], "flags"],
  [["N"], "note"],
  [["X"], "these cannot be ranked"],
  [["U"], "undo"],
  [["G"], "guidelines"],
  [["Shift", "Enter"], "send and go on"],
  [["Esc"], "leave a field, let go of a drag"],
  [["?"], "this help"],
];

/**
 * @param {Commands} commands
 */
export function enableKeyboard(commands) {
  /** @type {Record<string, () => void>} */
  const keys = {
    ArrowLeft: () => commands.go(-1),
    ArrowRight: () => commands.go(1),
    ArrowUp: () => commands.move(-1),
    ArrowDown: () => commands.move(1),
    "=": commands.tie,
    0: () => commands.place(null),
    f: commands.flags,
    n: commands.note,
    g: commands.guidelines,
    u: commands.undo,
    x: commands.notRankable,
    "?": commands.help,
  };

  document.addEventListener("keydown", (event) => {
    if (isCovered() || event.altKey || event.isComposing) return;
    if (event.key === "Enter" && event.shiftKey) {
      event.preventDefault();
      commands.submit();
      return;
    }
    if (takesText(event.target)) {
      if (event.key === "Escape") /** @type {HTMLElement} */ (event.target).blur();
      return;
    }
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      commands.undo();
      return;
    }
    if (event.ctrlKey || event.metaKey) return;
    const isRadio = event.target instanceof HTMLInputElement && event.target.type === "radio";
    if (isRadio && event.key.startsWith("Arrow")) return;
    // With Shift the digits are read by their place: what they print differs from keyboard to keyboard.
    const digit = Number(/^Digit([1-9])$/.exec(event.code)?.[1] ?? (/^[1-9]$/.test(event.key) ? event.key : 0));
    const act =
      digit && event.shiftKey
        ? () => commands.rate(digit)
        : digit
          ? () => commands.place(digit)
          : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

/** @returns {HTMLElement} the table of keys */
export function keyTable() {
  const rows = HELP.map(([names, text]) => {
    const shown = /** @type {string[]} */ (names).map((name) => (name === "…" ? "…" : h("kbd", {}, name)));
    return h(
      "tr",
      {},
      h(
        "th",
        { scope: "row" },
        shown.flatMap((key) => [key, " "]),
      ),
      h("td", {}, String(text)),
    );
  });
  return h("table", { class: "keys" }, h("tbody", {}, rows));
}
