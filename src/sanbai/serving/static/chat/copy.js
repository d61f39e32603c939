// @ts-check
// A button that copies a text and says so for a moment.
import { fill, h } from "../shared/dom.js";
import { icon } from "../shared/icon.js";
import { notify } from "../shared/notice.js";

const SHOWN_MILLISECONDS = 1600;

/**
 * @param {() => string} text
 * @param {string} label
 * @returns {HTMLButtonElement}
 */
export function copyButton(text, label) {
  const button = h("button", { class: "icon-button", type: "button", "aria-label": label, title: label }, icon("copy"));
  button.dataset.testid = "copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      notify("The browser did not allow copying.");
      return;
    }
    fill(button, icon("check"));
    button.setAttribute("aria-label", "Copied");
    setTimeout(() => {
      fill(button, icon("copy"));
      button.setAttribute("aria-label", label);
    }, SHOWN_MILLISECONDS);
  });
  return button;
}
