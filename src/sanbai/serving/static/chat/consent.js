// @ts-check
// The question that is asked once: may the house learn from what is said here?
import { sentence } from "../shared/api.js";
import { h } from "../shared/dom.js";
import { notify } from "../shared/notice.js";
import { session, setConsent } from "../shared/session.js";

const TEXT =
  "Your conversations are kept on this server so that you find them again. With your yes, they and your thumbs and " +
  "choices also train its next models. If you change your mind in the settings, every later round leaves them out.";

/**
 * The banner, or nothing where the question has been answered.
 * @returns {HTMLElement|null}
 */
export function consentBanner() {
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
    h("p", {}, TEXT),
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
