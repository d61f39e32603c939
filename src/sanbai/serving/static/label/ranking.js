// @ts-check
// What a labeler has said about one task so far: a rank for each answer, ties by sharing one, and ratings. Pure state:
// every change can be undone, and the whole can be written down and read back.

/**
 * @typedef {{likert: number|null, flags: string[], note: string}} Rating
 * @typedef {object} State
 * @property {(number|null)[]} ranks 1 is best; null: not ranked yet; equal numbers are ties
 * @property {Rating[]} ratings
 * @property {boolean} notRankable
 */

export const BEST_QUALITY = 7;

export class Ranking {
  /**
   * @param {number} numResponses
   * @param {State|null} [state] a draft to go on from
   */
  constructor(numResponses, state = null) {
    this.size = numResponses;
    /** @type {State} */
    this.state =
      state?.ranks.length === numResponses
        ? state
        : {
            ranks: Array(numResponses).fill(null),
            ratings: Array.from({ length: numResponses }, () => ({ likert: null, flags: [], note: "" })),
            notRankable: false,
          };
    /** @type {State[]} */
    this.past = [];
    /** @type {number|null} the answer that was ranked last, which a tie joins */
    this.last = null;
  }

  /** @param {(state: State) => void} act */
  change(act) {
    const next = structuredClone(this.state);
    act(next);
    if (JSON.stringify(next) === JSON.stringify(this.state)) return;
    this.past.push(this.state);
    this.state = next;
  }

  /** @returns {boolean} whether there was something to take back */
  undo() {
    const before = this.past.pop();
    if (before) this.state = before;
    return before !== undefined;
  }

  /**
   * @param {number} response
   * @param {number|null} rank null takes it out of the ranking
   */
  place(response, rank) {
    if (rank !== null && (rank < 1 || rank > this.size)) return;
    this.change((state) => {
      state.ranks[response] = rank;
    });
    if (rank !== null) this.last = response;
  }

  /**
   * One rank better (-1) or worse (+1); what is not ranked lies below the last rank.
   * @param {number} response
   * @param {-1|1} step
   */
  move(response, step) {
    const rank = (this.state.ranks[response] ?? this.size + 1) + step;
    if (rank > this.size) this.place(response, null);
    else this.place(response, Math.max(1, rank));
  }

  /**
   * Share the rank of the answer that was ranked before this one.
   * @param {number} response
   * @returns {boolean} whether there was such an answer
   */
  tie(response) {
    const rank = this.last === null || this.last === response ? null : this.state.ranks[this.last];
    if (rank === null) return false;
    this.place(response, rank);
    return true;
  }

  /** @param {number} response @param {number|null} likert */
  rate(response, likert) {
    this.change((state) => {
      state.ratings[response].likert = likert;
    });
  }

  /** @param {number} response @param {string} flag @param {boolean} isSet */
  flag(response, flag, isSet) {
    this.change(({ ratings }) => {
      const others = ratings[response].flags.filter((name) => name !== flag);
      ratings[response].flags = isSet ? [...others, flag].sort() : others;
    });
  }

  /** @param {number} response @param {string} note */
  note(response, note) {
    this.change((state) => {
      state.ratings[response].note = note.trim();
    });
  }

  /** @param {boolean} notRankable */
  setNotRankable(notRankable) {
    this.change((state) => {
      state.notRankable = notRankable;
    });
  }

  /**
   * @param {number} rank
   * @returns {number[]} the answers that share it
   */
  at(rank) {
    return this.state.ranks.flatMap((found, response) => (found === rank ? [response] : []));
  }

  /** @returns {number[]} the answers that have no rank yet */
  get unranked() {
    return this.state.ranks.flatMap((rank, response) => (rank === null ? [response] : []));
  }

  /** @returns {boolean} whether it can be sent */
  get isComplete() {
    return this.state.notRankable || this.unranked.length === 0;
  }

  /** @returns {number[][]} best first, without the empty ranks between */
  get buckets() {
    const all = Array.from({ length: this.size }, (_, index) => this.at(index + 1));
    return all.filter((bucket) => bucket.length > 0);
  }

  /**
   * Pairs in which the better ranked answer has the lower quality; both statements are kept, the labeler is told.
   * @returns {[number, number][]} the better ranked one first
   */
  get contradictions() {
    const { ranks, ratings } = this.state;
    /** @type {[number, number][]} */
    const found = [];
    for (let better = 0; better < this.size; better += 1) {
      for (let worse = 0; worse < this.size; worse += 1) {
        const [high, low] = [ratings[better].likert, ratings[worse].likert];
        const isAbove = (ranks[better] ?? Infinity) < (ranks[worse] ?? -Infinity);
        if (isAbove && high !== null && low !== null && high < low) found.push([better, worse]);
      }
    }
    return found;
  }
}

/** @param {number} response @returns {string} the letter an answer goes by */
export const letter = (response) => String.fromCharCode(65 + response);
