// @ts-check
// Dragging an answer into a rank with mouse, pen or finger. Handles carry `data-drag` (the answer), lanes `data-rank`
// (0 for the tray). Escape lets go.
import { h } from "../shared/dom.js";
import { letter } from "./ranking.js";

const START_PIXELS = 5;
const EDGE_PIXELS = 40;
const STEP_PIXELS = 14;

/**
 * @param {HTMLElement} desk holds the handles and the lanes
 * @param {(response: number, rank: number|null) => void} drop
 * @param {(isDragging: boolean) => void} dragging
 */
export function enableDragging(desk, drop, dragging) {
  /** @type {{response: number, handle: HTMLElement, x: number, y: number, ghost: HTMLElement|null}|null} */
  let held = null;

  /** @param {PointerEvent} event */
  const laneAt = (event) => {
    const lane = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-rank]");
    return lane instanceof HTMLElement ? lane : null;
  };

  const letGo = () => {
    if (!held) return;
    held.ghost?.remove();
    const wasDragging = held.ghost !== null;
    held = null;
    markLane(desk, null);
    if (wasDragging) dragging(false);
  };

  desk.addEventListener("pointerdown", (event) => {
    const handle = /** @type {Element} */ (event.target).closest("[data-drag]");
    if (!(handle instanceof HTMLElement) || event.button !== 0) return;
    held = { response: Number(handle.dataset.drag), handle, x: event.clientX, y: event.clientY, ghost: null };
    handle.setPointerCapture(event.pointerId);
  });

  desk.addEventListener("pointermove", (event) => {
    if (!held) return;
    if (!held.ghost) {
      if (Math.hypot(event.clientX - held.x, event.clientY - held.y) < START_PIXELS) return;
      held.ghost = h("div", { class: "ghost", "aria-hidden": "true" }, h("strong", {}, letter(held.response)));
      document.body.append(held.ghost);
      dragging(true);
    }
    event.preventDefault();
    held.ghost.style.transform = `translate(${event.clientX + 8}px, ${event.clientY + 8}px)`;
    markLane(desk, laneAt(event));
    scrollAtEdge(event, desk.querySelector(".board"));
  });

  desk.addEventListener("pointerup", (event) => {
    if (!held) return;
    const { response, handle, ghost } = held;
    const lane = ghost && laneAt(event);
    letGo();
    if (!ghost) return;
    // The click that ends a drag is not a click.
    handle.addEventListener("click", (click) => click.stopImmediatePropagation(), { capture: true, once: true });
    if (lane) drop(response, Number(lane.dataset.rank) || null);
  });

  desk.addEventListener("pointercancel", letGo);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") letGo();
  });
}

/**
 * Scroll the page and the ranks when the pointer comes near the window's upper or lower edge.
 * @param {PointerEvent} event
 * @param {Element|null} board
 */
function scrollAtEdge({ clientY }, board) {
  const step = clientY < EDGE_PIXELS * 2 ? -STEP_PIXELS : clientY > innerHeight - EDGE_PIXELS * 2 ? STEP_PIXELS : 0;
  if (!step) return;
  scrollBy(0, step);
  board?.scrollBy(0, step);
}

/**
 * @param {HTMLElement} desk
 * @param {HTMLElement|null} lane the one under the pointer
 */
function markLane(desk, lane) {
  for (const other of desk.querySelectorAll("[data-rank]")) other.classList.toggle("under", other === lane);
}
