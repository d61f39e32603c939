// @ts-check
// One conversation: its tree, what people do to it, and the answers that are being written. It draws nothing.
import { get, idempotencyKey, post, sentence } from "../shared/api.js";
import { followGeneration } from "../shared/stream.js";
import { MessageTree } from "./tree.js";

/** @typedef {import("./tree.js").Message} Message */

/**
 * @typedef {object} Watcher
 * @property {() => void} changed messages came, went or changed their state
 * @property {(message: Message) => void} grew an answer has more text
 * @property {(message: Message) => void} finished an answer is whole, stopped or failed
 * @property {(id: string) => void} opened the conversation now has an id
 */

export class Conversation {
  /** @param {Watcher} watcher */
  constructor(watcher) {
    this.watcher = watcher;
    /** @type {string|null} */
    this.id = null;
    this.title = "";
    this.tree = new MessageTree();
    /** @type {Map<string, () => void>} message id to the way of stopping to listen */
    this.live = new Map();
  }

  /**
   * Load a conversation and take up every answer that is still being written.
   * @param {string} id
   */
  async load(id) {
    const { title, messages } = await get(`/api/conversations/${id}`);
    this.id = id;
    this.title = title;
    this.tree = new MessageTree(messages.filter((/** @type {Message} */ message) => message.role !== "system"));
    this.watcher.changed();
    for (const message of this.tree.messages.values()) {
      if (message.state === "streaming" && message.generation_id) this.follow(message);
    }
  }

  /** Stop listening; what is being written goes on at the server. */
  leave() {
    for (const stopListening of this.live.values()) stopListening();
    this.live.clear();
  }

  /** @returns {boolean} whether an answer on the shown path is being written */
  get isAnswering() {
    return this.live.size > 0;
  }

  /**
   * Say something: after the shown path, or beside an earlier message of one's own (an edit).
   * @param {string} content
   * @param {{drafts: number, beside?: Message}} options
   */
  async say(content, { drafts, beside }) {
    const leaf = this.tree.leaf();
    // What could not be sent is no place to go on from.
    const before = beside ?? (leaf?.state === "unsent" ? leaf : null);
    const parent = before ? before.parent_id : (leaf?.id ?? null);
    /** @type {Message} */
    const waiting = {
      id: `waiting-${idempotencyKey()}`,
      parent_id: parent,
      role: "user",
      content,
      html: "",
      state: "sending",
    };
    this.tree.add(waiting);
    this.watcher.changed();
    try {
      if (!this.id) {
        this.id = (await post("/api/conversations")).id;
        this.watcher.opened(/** @type {string} */ (this.id));
      }
      const reply = await post(`/api/conversations/${this.id}/messages`, { content, parent_id: parent, drafts });
      this.tree.remove(waiting);
      this.tree.add(reply.message);
      for (const generation of reply.generations) this.begin(generation, reply.message.id, reply.drafts_id);
    } catch (trouble) {
      waiting.state = "unsent";
      waiting.trouble = sentence(trouble);
    }
    this.watcher.changed();
  }

  /**
   * Send again what could not be sent.
   * @param {Message} message
   * @param {number} drafts
   */
  async resend(message, drafts) {
    this.tree.remove(message);
    await this.say(message.content, { drafts });
  }

  /** @param {Message} message an answer that gets a sibling */
  async regenerate(message) {
    const { generation } = await post(`/api/messages/${message.id}/regenerate`);
    this.begin(generation, /** @type {string} */ (message.parent_id), null);
    this.watcher.changed();
  }

  /** Stop every answer that is being written. */
  async stop() {
    const running = [...this.live.keys()].map((id) => this.tree.messages.get(id)?.generation_id);
    await Promise.all(running.map((id) => post(`/api/generations/${id}/stop`)));
  }

  /**
   * Choose one of two drafts.
   * @param {[Message, Message]} pair
   * @param {0|1} choice
   */
  async choose(pair, choice) {
    await post(`/api/drafts/${pair[0].drafts_id}/choose`, { choice, idempotency_key: idempotencyKey() });
    pair.forEach((draft, position) => {
      draft.chosen = position === choice;
    });
    this.tree.show(pair[choice].id);
    this.watcher.changed();
  }

  /**
   * Store a thumb, with or without its reason.
   * @param {Message} message
   * @param {{value: 1|-1, reason: string, comment: string}} feedback
   */
  async react(message, feedback) {
    const body = { kind: "thumb", ...feedback, idempotency_key: idempotencyKey() };
    await post(`/api/messages/${message.id}/feedback`, body);
    message.feedback = feedback;
    this.watcher.changed();
  }

  /**
   * @param {{id: string, message_id: string}} generation
   * @param {string} parent
   * @param {string|null} drafts
   */
  begin(generation, parent, drafts) {
    /** @type {Message} */
    const message = {
      id: generation.message_id,
      parent_id: parent,
      role: "assistant",
      content: "",
      html: "",
      state: "streaming",
      generation_id: generation.id,
      drafts_id: drafts,
      chosen: null,
    };
    this.tree.add(message);
    this.follow(message);
  }

  /**
   * A message as the server keeps it.
   * @param {string} id
   * @returns {Promise<Message|null>}
   */
  async readKept(id) {
    const { messages } = await get(`/api/conversations/${this.id}`).catch(() => ({ messages: [] }));
    return messages.find((/** @type {Message} */ message) => message.id === id) ?? null;
  }

  /** @param {Message} message an answer that is being written */
  follow(message) {
    // The log is read from its beginning, whatever the page already knew of the text.
    message.html = "";
    message.tail = "";
    message.content = "";
    const end = (/** @type {Partial<Message>} */ result) => {
      Object.assign(message, result, { tail: "" });
      this.live.delete(message.id);
      this.watcher.finished(message);
      this.watcher.changed();
    };
    const stopListening = followGeneration(/** @type {string} */ (message.generation_id), {
      text: (text) => {
        message.content += text;
        message.tail += text;
        this.watcher.grew(message);
      },
      html: (html) => {
        message.html = html;
        // Rendering drops the space at the end, which the text that follows still needs.
        message.tail = message.content.slice(message.content.trimEnd().length);
        this.watcher.grew(message);
      },
      done: async ({ html, finish_reason, model, round, state }, wasResumed) => {
        const kept = wasResumed ? await this.readKept(message.id) : null;
        end({ html, finish_reason, model, round, state, ...kept });
      },
      error: (trouble) => end({ state: "failed", trouble: sentence(trouble) }),
    });
    this.live.set(message.id, stopListening);
  }
}
