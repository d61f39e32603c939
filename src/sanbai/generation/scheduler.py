"""What the next step reads: answers come and go at every step, and share a fixed number of blocks.

- A step reads one token of every answer in the making, and chunks of waiting prompts up to a number of tokens, so that
  a long prompt holds up nobody's next token for longer than a chunk takes.
- A prompt is begun when its blocks are there, oldest of each tenant in turn; what is known of it already is not read.
- Where an answer needs a block and none is left, the youngest gives its blocks back and waits at the head of its line.
  What it has written is read again when its turn comes: its numbers and draws are as if nothing had happened. The
  oldest never gives way, so the work always ends.
- Answers to one prompt wait until it is read once and then share its blocks; of the last, partly filled one each gets a
  copy.

Lists, numbers and blocks only; no tensors.
"""

from __future__ import annotations

from typing import NamedTuple

from sanbai.generation.blocks import BlockPool, root_key
from sanbai.generation.fair_queue import FairQueue
from sanbai.generation.row import Row


class Chunk(NamedTuple):
    """Tokens of one row that a step reads."""

    row: Row
    start: int
    end: int
    """The first position that it does not read."""

    @property
    def length(self) -> int:
        """Positions read."""
        return self.end - self.start


class Plan(NamedTuple):
    """One step."""

    decoding: list[Row]
    """Read one token each, and draw one."""
    chunks: list[Chunk]
    """Those that are read to their end draw one too."""
    drafts: list[Chunk]
    """What is read beyond their token of some that decode: guesses, each of which may save a step."""


class Scheduler:
    """Rows in their three states, and their blocks."""

    def __init__(self, pool: BlockPool, *, max_rows: int, step_tokens: int, max_waiting: int) -> None:
        """Begin without rows.

        Args:
            pool: the blocks.
            max_rows: answers in the making at most.
            step_tokens: tokens that a step reads at most, decoding included; more than `max_rows`.
            max_waiting: requests that may wait.
        """
        self.pool = pool
        self._max_rows, self._step_tokens = max_rows, step_tokens
        self.waiting: FairQueue[Row] = FairQueue(max_waiting)
        self.prefilling: list[Row] = []
        self.decoding: list[Row] = []
        self.num_preemptions = 0
        self.num_found_tokens = 0
        """Tokens of prompts that were in the cache when they began."""

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self.decoding or self.prefilling or len(self.waiting))

    def plan(self) -> Plan:
        """Give every decoding row room for its token, begin what can begin, and say what the step reads."""
        preempted = self._extend()
        left = self._step_tokens - len(self.decoding)
        chunks: list[Chunk] = []
        for row in self.prefilling:
            left = self._add_chunk(chunks, row, left)
        while left > 0 and not preempted and (begun := self._begin()) is not None:
            left = self._add_chunk(chunks, begun, left)
        return Plan(list(self.decoding), chunks, [])

    def reserve(self, row: Row, count: int) -> int:
        """Give a decoding row room for up to `count` tokens behind its next; return for how many there is.

        Nobody gives way for them.
        """
        room = self.pool.size * len(row.blocks) - row.num_cached - 1
        wanted = self.pool.blocks_for(max(0, count - room))
        row.blocks += self.pool.take(min(wanted, self.pool.num_available))
        return min(count, self.pool.size * len(row.blocks) - row.num_cached - 1)

    def note_read(self, plan: Plan) -> list[Row]:
        """Count what a step has written as cached; return the rows whose prompts are now read whole."""
        for row in plan.decoding:
            row.num_cached += 1
            self._enter_full(row)
        for row, _, end in plan.chunks:
            row.num_cached = end
            self._enter_full(row)
        done = [row for row, _, end in plan.chunks if end == len(row.ids)]
        self.prefilling = [row for row in self.prefilling if row.num_cached < len(row.ids)]
        self.decoding += done
        return done

    def note_agreed(self, row: Row) -> None:
        """Count the last token as cached: it was read as a guess in the step that drew it."""
        row.num_cached += 1
        self._enter_full(row)

    def fork(self, leader: Row) -> tuple[list[Row], list[int], list[int]]:
        """Let a leader's siblings begin where it stands, as far as there is room; the others wait.

        Returns:
            Those that began; and blocks to be copied, from and to.
        """
        size = self.pool.size
        whole, partial = divmod(leader.num_cached, size)
        room = self._max_rows - len(self.decoding) - len(self.prefilling)
        if partial:
            room = min(room, self.pool.num_available)
        begun, late = leader.siblings[: max(room, 0)], leader.siblings[max(room, 0) :]
        leader.siblings = []
        copies = self.pool.take(len(begun)) if partial else []
        for index, row in enumerate(begun):
            self.pool.share(leader.blocks[:whole])
            row.blocks = leader.blocks[:whole] + copies[index : index + 1]
            row.num_cached, row.keys, row.lease = leader.num_cached, list(leader.keys), object()
            row.memory = leader.memory
        self.decoding += begun
        for row in reversed(late):
            self.waiting.push_front(row, row.request.tenant)
        return begun, [leader.blocks[whole]] * len(copies) if partial else [], copies

    def remove(self, row: Row) -> None:
        """Take a row out wherever it stands, at once, with every block."""
        if row in self.decoding:
            # The last row takes its place: the window then fills one lane anew and keeps the others.
            place, last = self.decoding.index(row), self.decoding.pop()
            if last is not row:
                self.decoding[place] = last
        elif row in self.prefilling:
            self.prefilling.remove(row)
        else:
            self.waiting.remove(row, row.request.tenant)
        self._release(row)

    def preempt_all(self) -> None:
        """Send every row back to wait, the oldest to be next."""
        for row in sorted(self.decoding + self.prefilling, key=lambda row: -row.order):
            self._preempt(row)

    def _extend(self) -> bool:
        """Give every decoding row a block for its next position, oldest first; return whether one had to give way."""
        size = self.pool.size
        needing = [row for row in self.decoding if row.num_cached == len(row.blocks) * size]
        preempted = False
        for row in sorted(needing, key=lambda row: row.order):
            while row.blocks and not self.pool.num_available:
                self._preempt(max(self.decoding + self.prefilling, key=lambda row: row.order))
                preempted = True
            if row.blocks:  # it was not the youngest itself
                row.blocks += self.pool.take(1)
        return preempted

    def _begin(self) -> Row | None:
        """Take the next waiting row if there is room for all its known tokens."""
        row = self.waiting.peek()
        if row is None or len(self.decoding) + len(self.prefilling) >= self._max_rows:
            return None
        found: list[int] = []
        if row.remembered and not row.needs_prompt_scores:
            # The last token is read in any case: its logits are wanted.
            found = self.pool.find(row.ids[:-1], row.salt)
        self.pool.share(found)
        wanted = self.pool.blocks_for(len(row.ids)) - len(found)
        if wanted > self.pool.num_available:
            self.pool.release(found)
            return None
        self.waiting.pop()
        row.blocks = found + self.pool.take(wanted)
        row.num_cached = len(found) * self.pool.size
        row.keys = [self.pool.key_of(block) for block in found]
        row.lease = object()
        self.num_found_tokens += row.num_cached
        self.prefilling.append(row)
        return row

    @staticmethod
    def _add_chunk(chunks: list[Chunk], row: Row, left: int) -> int:
        end = min(len(row.ids), row.num_cached + left)
        if end > row.num_cached:
            chunks.append(Chunk(row, row.num_cached, end))
        return left - (end - row.num_cached)

    def _enter_full(self, row: Row) -> None:
        """Make blocks that have become full findable."""
        size = self.pool.size
        while row.remembered and (len(row.keys) + 1) * size <= row.num_cached:
            place = len(row.keys)
            before = row.keys[-1] if row.keys else root_key(row.salt)
            content = row.ids[place * size : (place + 1) * size]
            row.keys.append(self.pool.enter(row.blocks[place], before, content))

    def _preempt(self, row: Row) -> None:
        self.num_preemptions += 1
        row.prompt_scores = [] if row.needs_prompt_scores else row.prompt_scores
        self.remove(row)
        self.waiting.push_front(row, row.request.tenant)

    def _release(self, row: Row) -> None:
        self.pool.release(row.blocks)
        row.blocks, row.keys, row.num_cached, row.lease, row.memory = [], [], 0, object(), None
