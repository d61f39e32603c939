// @ts-check
// A conversation as a tree: an edited message or a second answer is a sibling, and one path through it is shown.

/**
 * @typedef {object} Message
 * @property {string} id
 * @property {string|null} parent_id
 * @property {"system"|"user"|"assistant"|"tool"} role
 * @property {string} content
 * @property {string} html rendered and sanitised by the server
 * @property {string} [model]
 * @property {number|null} [round]
 * @property {string|null} [finish_reason]
 * @property {string} state `streaming` while it is being written
 * @property {string|null} [generation_id]
 * @property {string|null} [drafts_id] shared by two answers written side by side
 * @property {boolean|null} [chosen] of a draft: whether it was chosen, null before the choice
 * @property {{value: 1|-1, reason: string, comment: string}|null} [feedback]
 * @property {string} [tail] text that came after `html`
 * @property {string} [trouble] why it failed
 */

/**
 * @typedef {object} Step one place on the shown path
 * @property {Message} message
 * @property {Message[]} siblings oldest first, the message among them
 * @property {[Message, Message]|null} pair two drafts that still wait for a choice
 */

const ROOT = "";

export class MessageTree {
  /** @param {Message[]} messages parents before children */
  constructor(messages = []) {
    /** @type {Map<string, Message>} */
    this.messages = new Map();
    /** @type {Map<string, Message[]>} */
    this.children = new Map();
    /** @type {Map<string, string>} the child shown under a parent */
    this.shown = new Map();
    for (const message of messages) this.add(message);
  }

  /**
   * Add a message and show it.
   * @param {Message} message
   */
  add(message) {
    const parent = message.parent_id ?? ROOT;
    const siblings = this.children.get(parent) ?? [];
    siblings.push(message);
    this.children.set(parent, siblings);
    this.messages.set(message.id, message);
    const first = this.pairOf(message)?.[0];
    if (message.chosen !== false) this.shown.set(parent, first && !this.isDecided(first) ? first.id : message.id);
  }

  /** @param {Message} message a message without children */
  remove(message) {
    const parent = message.parent_id ?? ROOT;
    const siblings = (this.children.get(parent) ?? []).filter((other) => other.id !== message.id);
    this.children.set(parent, siblings);
    this.messages.delete(message.id);
    const last = siblings.at(-1);
    if (last) this.shown.set(parent, last.id);
    else this.shown.delete(parent);
  }

  /** @param {string} id the message to show among its siblings */
  show(id) {
    const message = this.messages.get(id);
    if (message) this.shown.set(message.parent_id ?? ROOT, id);
  }

  /**
   * The other draft beside this one, both in the order they were asked for.
   * @param {Message} message
   * @returns {[Message, Message]|null}
   */
  pairOf(message) {
    if (!message.drafts_id) return null;
    const siblings = this.children.get(message.parent_id ?? ROOT) ?? [];
    const [first, second] = siblings.filter((other) => other.drafts_id === message.drafts_id);
    return second ? [first, second] : null;
  }

  /**
   * Whether two drafts need no choice any more: one was chosen, or the talk went on from one.
   * @param {Message} message
   * @returns {boolean}
   */
  isDecided(message) {
    const pair = this.pairOf(message);
    return !pair || pair.some((draft) => draft.chosen || (this.children.get(draft.id)?.length ?? 0) > 0);
  }

  /** @returns {Step[]} the shown path from the first message on */
  path() {
    /** @type {Step[]} */
    const steps = [];
    let parent = ROOT;
    for (;;) {
      const siblings = this.children.get(parent);
      const message = siblings?.find((sibling) => sibling.id === this.shown.get(parent));
      if (!siblings || !message) return steps;
      const pair = this.isDecided(message) ? null : this.pairOf(message);
      steps.push({ message, siblings, pair });
      parent = message.id;
    }
  }

  /** @returns {Message|null} the end of the shown path, where the talk goes on */
  leaf() {
    return this.path().at(-1)?.message ?? null;
  }
}
