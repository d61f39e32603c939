// @ts-check
// The icons, drawn here on a 24 by 24 grid in strokes of the text's colour, and the seal of the house.
import { trusted } from "./dom.js";

const PATHS = {
  plus: "M12 5v14M5 12h14",
  search: "M20 20l-4.2-4.2M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14z",
  sidebar:
    "M4 6.5A1.5 1.5 0 0 1 5.5 5h13A1.5 1.5 0 0 1 20 6.5v11a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 17.5zM9.5 5v14",
  send: "M12 19V5M5.5 11.5L12 5l6.5 6.5",
  stop: "M8 7h8a1 1 0 0 1 1 1v8a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1V8a1 1 0 0 1 1-1z",
  copy: "M9 9.5A1.5 1.5 0 0 1 10.5 8h8A1.5 1.5 0 0 1 20 9.5v9a1.5 1.5 0 0 1-1.5 1.5h-8A1.5 1.5 0 0 1 9 18.5zM5.5 16A1.5 1.5 0 0 1 4 14.5v-9A1.5 1.5 0 0 1 5.5 4h8A1.5 1.5 0 0 1 15 5.5",
  check: "M5 12.5l4.5 4.5L19 7.5",
  up: "M7 10.5v9M7 19.5H4.5v-9H7l4-7c1.4 0 2.2 1 2 2.3L12.3 9.5h5.4a2 2 0 0 1 2 2.4l-1.2 6a2 2 0 0 1-2 1.6H7",
  down: "M17 13.5v-9M17 4.5h2.5v9H17l-4 7c-1.4 0-2.2-1-2-2.3l.7-3.7H6.3a2 2 0 0 1-2-2.4l1.2-6a2 2 0 0 1 2-1.6H17",
  again: "M19.5 5v4.5H15M4.5 19v-4.5H9M18.9 9.5A7.3 7.3 0 0 0 5.6 8.4M5.1 14.5a7.3 7.3 0 0 0 13.3 1.1",
  pencil: "M4.5 19.5l1-4.2L15.7 5.1a1.9 1.9 0 0 1 2.7 0l.5.5a1.9 1.9 0 0 1 0 2.7L8.7 18.5zM13.5 7.3l3.2 3.2",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.3 10.5l.3 5.5M13.7 10.5l-.3 5.5",
  dots: "M6 12h.01M12 12h.01M18 12h.01",
  columns:
    "M5.5 5h13A1.5 1.5 0 0 1 20 6.5v11a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 17.5v-11A1.5 1.5 0 0 1 5.5 5zM12 5v14",
  left: "M14.5 6L8.5 12l6 6",
  right: "M9.5 6l6 6-6 6",
  below: "M6 9.5l6 6 6-6",
  close: "M6.5 6.5l11 11M17.5 6.5l-11 11",
  help: "M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17zM9.7 9.5a2.4 2.4 0 1 1 3.4 2.4c-.8.4-1.1.9-1.1 1.7M12 16.5h.01",
  undo: "M4.5 9.5h9.5a5 5 0 0 1 0 10h-3M8.5 5.5l-4 4 4 4",
  flag: "M6 20.5V4.5M6 5.5c4-2 7 2 12 0v8.5c-5 2-8-2-12 0",
  grip: "M9.5 7h.01M14.5 7h.01M9.5 12h.01M14.5 12h.01M9.5 17h.01M14.5 17h.01",
  leave: "M14 5H6.5A1.5 1.5 0 0 0 5 6.5v11A1.5 1.5 0 0 0 6.5 19H14M10.5 12H20M16.5 8.5L20 12l-3.5 3.5",
  key: "M8.5 19a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM11.7 11.3L19.5 4.5M15.5 8l2.5 2.5",
  report: "M6 4h8l4 4v12H6zM14 4v4h4M9 12.5h6M9 16h6",
  back: "M19 12H5M11 6l-6 6 6 6",
};

/** @typedef {keyof typeof PATHS} IconName */

/**
 * An icon; it says nothing to a screen reader, so its button carries the label.
 * @param {IconName} name
 * @returns {Node}
 */
export function icon(name) {
  return trusted(
    `<svg class="icon icon-${name}" viewBox="0 0 24 24" aria-hidden="true"><path d="${PATHS[name]}"/></svg>`,
  );
}

/**
 * The seal: the character for three, three strokes in a red square.
 * @returns {Node}
 */
export function seal() {
  return trusted(
    '<svg class="seal" viewBox="0 0 32 32" aria-hidden="true"><rect x="1" y="1" width="30" height="30" rx="8"/>' +
      '<path d="M9.5 9.5h13M11 16h10M8 22.5h16"/></svg>',
  );
}
