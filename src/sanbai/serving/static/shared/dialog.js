// @ts-check
// Modal dialogs on the browser's own <dialog>: focus stays inside, Escape closes, focus returns where it was.
import { h } from "./dom.js";
import { icon } from "./icon.js";

/**
 * Show a form as a dialog; resolves to its data when it is sent, to null when it is closed.
 * @param {object} options
 * @param {string} options.title
 * @param {(Node|string)[]} options.body
 * @param {string} options.accept the label of the button that sends
 * @param {string} [options.dismiss] the label of the button that closes
 * @param {boolean} [options.danger] whether accepting destroys something
 * @param {string} options.testid
 * @returns {Promise<FormData|null>}
 */
export function ask({ title, body, accept, dismiss = "Cancel", danger = false, testid }) {
  return new Promise((resolve) => {
    const close = () => dialog.close();
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: `${testid}-title` }, title),
      body,
      h(
        "div",
        { class: "dialog-buttons" },
        h(
          "button",
          { class: "button quiet", type: "button", onclick: close, "data-testid": "dialog-dismiss" },
          dismiss,
        ),
        h("button", { class: danger ? "button danger" : "button primary", "data-testid": "dialog-accept" }, accept),
      ),
    );
    /** @type {FormData|null} */
    let answer = null;
    form.addEventListener("submit", () => {
      answer = new FormData(form);
    });
    const dialog = present(form, `${testid}-title`, testid, () => resolve(answer));
  });
}

/**
 * Show something to read as a dialog.
 * @param {string} title
 * @param {Node} body
 * @param {string} testid
 */
export function show(title, body, testid) {
  const close = h("button", { class: "icon-button", type: "button", "aria-label": "Close" }, icon("close"));
  const head = h("header", { class: "dialog-head" }, h("h2", { id: `${testid}-title` }, title), close);
  const dialog = present(h("div", {}, head, body), `${testid}-title`, testid, () => {});
  close.addEventListener("click", () => dialog.close());
}

/**
 * @param {Node} content
 * @param {string} labelledBy
 * @param {string} testid
 * @param {() => void} closed
 * @returns {HTMLDialogElement}
 */
function present(content, labelledBy, testid, closed) {
  const dialog = h("dialog", { "aria-labelledby": labelledBy, "data-testid": testid }, content);
  dialog.addEventListener("close", () => {
    dialog.remove();
    closed();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && outside(dialog, event)) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * Whether a click fell on the backdrop.
 * @param {HTMLDialogElement} dialog
 * @param {MouseEvent} event
 */
function outside(dialog, event) {
  const box = dialog.getBoundingClientRect();
  const { clientX: x, clientY: y } = event;
  return (x !== 0 || y !== 0) && (x < box.left || x > box.right || y < box.top || y > box.bottom);
}

/** @returns {boolean} whether a dialog or menu lies above the page and takes the keys */
export function isCovered() {
  return document.querySelector("dialog[open], .menu:popover-open") !== null;
}
