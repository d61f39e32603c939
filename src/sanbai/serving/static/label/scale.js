// @ts-check
// A row of numbers of which one can be taken: ranks and qualities. Taking the taken one again clears it.
import { h } from "../shared/dom.js";

export class Scale {
  /**
   * @param {object} options
   * @param {string} options.name unique on the page
   * @param {string} options.label
   * @param {number} options.most the numbers run from 1 to here
   * @param {string} [options.hint]
   * @param {(value: number|null) => void} options.act
   */
  constructor({ name, label, most, hint, act }) {
    this.inputs = Array.from({ length: most }, (_, index) => {
      const value = index + 1;
      const input = h("input", {
        type: "radio",
        name,
        value,
        "aria-label": `${label} ${value}`,
        "data-testid": `${name}-${value}`,
      });
      let wasChecked = false;
      input.addEventListener("pointerdown", () => {
        wasChecked = input.checked;
      });
      input.addEventListener("click", () => {
        if (wasChecked) act(null);
        wasChecked = false;
      });
      input.addEventListener("change", () => act(value));
      return input;
    });
    const numbers = this.inputs.map((input, index) => h("label", {}, input, h("span", {}, index + 1)));
    this.element = h(
      "fieldset",
      { class: "scale", title: hint },
      h("legend", {}, label),
      h("div", { class: "scale-row" }, numbers),
    );
  }

  /** @param {number|null} value */
  show(value) {
    this.inputs.forEach((input, index) => {
      input.checked = value === index + 1;
    });
  }
}
