// @ts-check
// Building the page: elements with attributes and listeners, and the one place where the server's HTML enters.

/** @typedef {Node|string|number|null|undefined|false} Child */

/**
 * An element with attributes, `on...` listeners and children; strings become text, never markup.
 * `true` writes an empty attribute; `false`, `null` and `undefined` write none.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Child|Child[])} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  append(element, children);
  return element;
}

/**
 * Append children, skipping the empty ones.
 * @param {Element} element
 * @param {(Child|Child[])[]} children
 */
function append(element, children) {
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) {
      element.append(child instanceof Node ? child : String(child));
    }
  }
}

/**
 * Put these children in place of whatever the element holds.
 * @param {Element} element
 * @param {...(Child|Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/**
 * HTML that the server has rendered and sanitised, as nodes. Nothing else may be parsed as markup.
 * @param {string} html
 * @returns {DocumentFragment}
 */
export function trusted(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

/**
 * The element with this id, which the page's shell is known to hold.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no element #${id}`);
  return element;
}

/**
 * Whether keys pressed here are text for a field rather than commands for the page.
 * @param {EventTarget|null} target
 * @returns {boolean}
 */
export function takesText(target) {
  return (
    target instanceof HTMLTextAreaElement ||
    target instanceof HTMLSelectElement ||
    (target instanceof HTMLInputElement && !["checkbox", "radio", "button"].includes(target.type)) ||
    (target instanceof HTMLElement && target.isContentEditable)
  );
}
