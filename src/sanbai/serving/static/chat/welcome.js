// @ts-check
// What an empty conversation shows: a greeting, and questions to begin with.
import { get } from "../shared/api.js";
import { h } from "../shared/dom.js";
import { seal } from "../shared/icon.js";

/** @type {Promise<{greeting: string, examples: {title: string, prompt: string}[]}>|null} */
let welcome = null;

/**
 * @param {(prompt: string) => void} begin
 * @returns {Promise<HTMLElement>}
 */
export async function welcomePanel(begin) {
  welcome ??= get("/api/welcome").catch(() => ({ greeting: "What would you like to know?", examples: [] }));
  const { greeting, examples } = await welcome;
  const card = (/** @type {{title: string, prompt: string}} */ { title, prompt }) =>
    h(
      "button",
      { class: "example card", type: "button", onclick: () => begin(prompt), "data-testid": "example" },
      h("strong", {}, title),
      h("span", {}, prompt),
    );
  return h(
    "section",
    { class: "welcome", "aria-label": "Welcome", "data-testid": "welcome" },
    seal(),
    h("h1", {}, greeting),
    h("div", { class: "examples" }, examples.map(card)),
  );
}
