// @ts-check
// The question that is asked once: may the house learn from what is said here?
import { sentence } from "./api.js";
import { h } from "./dom.js";
import { notify } from "./notice.js";
import { session, setConsent } from "./session.js";

export const CHAT_TEXT =
  "Your conversations are kept on this server so that you find them again. With your yes, they and your thumbs and " +
  "choices also train its next models. If you change your mind in the settings, every later round leaves them out.";
export const LABEL_TEXT =
  "Your rankings are kept on this server. With your yes, they train its next models; without it, no model learns from " +
  "them. You can change your mind in the settings.";

/**
 * The banner, or nothing where the question has been answered.
 * @param {string} text what is kept, and what a yes means here
 * @returns {HTMLElement|null}
 */
export function consentBanner(text) {
  if (session().consent !== null) return null;
  const answer = async (/** @type {boolean} */ granted) => {
    try {
      await setConsent(granted);
    } catch (trouble) {
      notify(sentence(trouble));
    }
  };
  const banner = h(
    "section",
    { class: "consent card", "aria-label": "May it learn from you?", "data-testid": "consent" },
    h("h2", {}, "May it learn from you?"),
    h("p", {}, text),
    h(
      "div",
      { class: "dialog-buttons" },
      h(
        "button",
        { class: "button quiet small", type: "button", onclick: () => answer(false), "data-testid": "consent-no" },
        "No, only keep them",
      ),
      h(
        "button",
        { class: "button primary small", type: "button", onclick: () => answer(true), "data-testid": "consent-yes" },
        "Yes, learn from them",
      ),
    ),
  );
  document.addEventListener("consent", () => banner.remove());
  return banner;
}
