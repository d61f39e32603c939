// @ts-check
// Rendering a growing answer: only the blocks that changed are replaced, so that selections, scroll positions and
// frames survive, however long the answer is.
import { h, trusted } from "../shared/dom.js";

/** @type {WeakMap<Element, string[]>} the markup of each block as the server sent it */
const drawn = new WeakMap();

/**
 * Show the server's HTML in a container, leaving untouched the leading blocks that are the same as before.
 * @param {Element} container
 * @param {string} html
 */
export function drawBlocks(container, html) {
  const fresh = [...trusted(html).childNodes].filter((node) => !(node instanceof Text && !node.data.trim()));
  const markup = fresh.map((node) => (node instanceof Element ? node.outerHTML : (node.textContent ?? "")));
  const before = drawn.get(container) ?? [];
  let same = 0;
  while (same < markup.length && markup[same] === before[same]) same += 1;
  while (container.childNodes.length > same) container.lastChild?.remove();
  container.append(...fresh.slice(same));
  drawn.set(container, markup);
}

/**
 * Show text that is not rendered yet at the end of the last block.
 * @param {Element} container
 * @param {string} text
 */
export function drawTail(container, text) {
  container.querySelector(".tail")?.remove();
  const tail = h("span", { class: "tail" }, text);
  const block = /^[^\S\n]*\n\s*\n\s*\S/.test(text) ? container : lastBlock(container);
  if (block === container) {
    const line = h("p", { class: "tail" }, tail);
    tail.classList.remove("tail");
    container.append(line);
  } else {
    block.append(tail);
  }
}

/**
 * The innermost last block that text may follow in.
 * @param {Element} container
 * @returns {Element}
 */
function lastBlock(container) {
  const last = container.lastElementChild;
  return last && /^(P|LI|UL|OL|BLOCKQUOTE|PRE|CODE|H[1-6])$/.test(last.tagName) ? lastBlock(last) : container;
}

/**
 * Give each block of code a button that copies it.
 * @param {Element} container
 * @param {(text: string) => Node} button
 */
export function frameCode(container, button) {
  for (const code of container.querySelectorAll("pre")) {
    if (code.parentElement?.classList.contains("code-frame")) continue;
    const frame = h("div", { class: "code-frame" });
    code.tabIndex = 0;
    code.replaceWith(frame);
    frame.append(code, button(code.textContent ?? ""));
  }
}
