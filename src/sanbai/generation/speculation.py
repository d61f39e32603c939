"""Speculative decoding: several tokens of an answer in one step, where they were guessed beforehand.

A step reads a row's next token and, behind it, tokens that somebody has guessed to follow. The logits at each of them
are those that the row would have had one step later each, if all guesses before were right: so they are drawn from in
turn, and as long as the token drawn is the guess, the next draw counts too. One step gives one token more than there
were right guesses.

Which token a position gets is decided by the model's logits there and the number that seed and position give
(`drawing.py`), as without guesses; a guess only decides when it is known. So answers are the same, token for token up
to rounding, whether anything is guessed or not, whatever the machine's speed and whoever else is in the batch; and
their distribution is the model's because it is that of the plain engine.

Leviathan et al. 2023 (arXiv:2211.17192) and Chen et al. 2023 (arXiv:2302.01318) accept a guess x with probability
min(1, p(x) / q(x)) by a number drawn for it alone. For a guess that nothing was left to chance in, q(x) = 1, and p(x)
is the probability of agreeing here too: nothing is lost. A draft model that draws agrees less often than under their
rule (1 - sum |p - q| / 2); it draws with the very number that the model will, which is what makes up for most of that
(Daliri et al. 2024, arXiv:2408.07978, on drafts that share the model's randomness). What is bought is that a seed's
answer depends on no measurement of time.

Not guessed for: rows with a mask (a grammar), or with penalties or biases, whose logits depend on each token before.

Guessing stops where it does not pay: `Gauge`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

import torch

from sanbai.generation.request import NewToken
from sanbai.generation.row import Row
from sanbai.generation.scheduler import Chunk, Plan, Scheduler
from sanbai.generation.step_costs import StepCosts

LOSS = 0.01
"""Of the time of all steps: what guesses may have lost on balance before they stop for a while."""
GRACE = 4
"""Plain steps that may be lost beside: the first reading of a text by a draft model comes before all gain."""
LEAN = 4.0
"""How many guesses the experience of other answers stands for, while an answer has little of its own."""
MEMORY = 0.9
"""What an answer's tried guesses still count at each further try; those of all together fade ten times slower."""
PLAIN_EVERY = 32
"""So often at least a step goes without guesses, lest their gain be measured against times long past."""
FIRST = 4
"""Plain steps before the first guess, to know what they take."""
TRIAL = 2
"""Guesses where more are not expected to pay, to see whether that has changed."""


class Proposer(Protocol):
    """Who guesses."""

    def propose(self, asked: Sequence[tuple[Row, int]]) -> None:
        """Append to `draft` of each row, empty so far, up to so many tokens; the row has blocks for them."""


@dataclass(slots=True)
class Experience:
    """How often guesses for one answer were right."""

    right: float = 0.0
    tried: float = 0.0
    steps: int = 0
    """In which there were any."""


@dataclass(slots=True)
class Counts:
    """What guessing has come to."""

    guesses: int = 0
    """Read by the model."""
    right: int = 0
    """Tokens that needed no step of their own."""
    steps: int = 0
    """Steps of single answers with guesses."""


class Gauge:
    """How many guesses pay: tokens expected against seconds measured.

    With share r of guesses right, k of them bring E(k) = r + r^2 + ... + r^k tokens beyond the one that is certain. A
    token is worth the seconds of a plain step over its rows; guessing k costs what `StepCosts` has seen. The best k is
    taken if its gain is above 0. What was really gained or lost is booked: once the losses come to `LOSS` of the time
    of all steps, and `GRACE`, nothing is guessed until enough plain steps have passed. Where nothing is expected to be
    gained, one answer makes a trial from time to time, as long as half of that is left.
    """

    def __init__(self) -> None:
        """Begin with a hopeful half."""
        self.costs = StepCosts()
        self.balance = self.total = 0.0
        """Seconds gained by guesses, no more than may be lost again; and of all steps."""
        self._all = Experience(right=LEAN / 2, tried=LEAN)
        self._in_a_row = 0

    @property
    def stopped(self) -> bool:
        """Whether nothing may be guessed now."""
        if self.costs.num_seen < FIRST or self._in_a_row >= PLAIN_EVERY:
            return True
        return self.balance < -self._losable

    @property
    def may_try(self) -> bool:
        """Whether there is time for a trial that is not expected to pay."""
        return not self.stopped and self._in_a_row == 0 and self.balance > -self._losable / 2

    @property
    def _losable(self) -> float:
        return LOSS * self.total + GRACE * self.costs.plain(1)

    def best(self, experience: Experience, rows: int, most: int) -> int:
        """Return how many guesses to ask for, of an answer that is one of `rows`."""
        if self.stopped:
            return 0
        share = (experience.right + LEAN * self._all.right / self._all.tried) / (experience.tried + LEAN)
        worth = self.costs.plain(rows) / rows
        gain, best, expected = 0.0, 0, 0.0
        for count in range(1, most + 1):
            expected += share**count
            found = worth * expected - self.costs.a_row - self.costs.a_guess * count
            if found > gain:
                gain, best = found, count
            elif worth * share**count < self.costs.a_guess:
                break  # no further guess is worth its own cost
        return best

    def see(self, drafted: Sequence[tuple[Experience, int, int]], rows: int, seconds: float) -> None:
        """Learn from a step of `rows` that read nothing else.

        Args:
            drafted: of each answer with guesses: its experience, how many, and how many of them were right.
            rows: that decoded.
            seconds: that it took.
        """
        guesses = sum(count for _, count, _ in drafted)
        new = any(experience.steps == 0 for experience, _, _ in drafted)  # a draft model then reads the whole text
        for experience, count, right in drafted:
            tried = min(count, right + 1)
            experience.steps += 1
            for each, kept in ((experience, MEMORY), (self._all, 1 - (1 - MEMORY) / 10)):
                each.right, each.tried = kept**tried * each.right + right, kept**tried * each.tried + tried
        if drafted and self.costs.num_seen:
            plain = self.costs.plain(rows)
            self.balance += sum(right for _, _, right in drafted) * plain / rows - (seconds - plain)
        self.total += seconds
        self.balance = min(self.balance, LOSS * self.total)
        self._in_a_row = self._in_a_row + 1 if drafted else 0
        if not new:
            self.costs.see(rows=rows, guessing=len(drafted), guesses=guesses, seconds=seconds)


@dataclass(slots=True)
class Speculator:
    """Plans an engine's guesses and learns from them."""

    proposer: Proposer
    scheduler: Scheduler
    most: int
    """Guesses a row and step."""
    step_tokens: int
    on_cpu: bool = True
    gauge: Gauge = field(default_factory=Gauge)
    counts: Counts = field(default_factory=Counts)
    _trial: Row | None = None
    _experiences: WeakKeyDictionary[Row, Experience] = field(default_factory=WeakKeyDictionary)

    def clock(self) -> float:
        """Return seconds that only differences of mean anything: of this thread's work where that is the machine's."""
        return time.thread_time() if self.on_cpu and torch.get_num_threads() == 1 else time.perf_counter()

    def guess(self, plan: Plan) -> Plan:
        """Return the plan with guesses, as many as pay and have room."""
        left = self.step_tokens - len(plan.decoding) - sum(chunk.length for chunk in plan.chunks)
        asked: list[tuple[Row, int]] = []
        # While prompts wait, their tokens come first.
        rows = [row for row in plan.decoding if _guessable(row)] if not plan.chunks else []
        for row in rows:
            most = min(self.most, row.limit - row.num_new - 1, left)
            count = self.gauge.best(self._experience(row), len(plan.decoding), most)
            if count and (count := self.scheduler.reserve(row, count)):
                asked.append((row, count))
                left -= count
        if rows and not asked and self.gauge.may_try:
            row = self._next_trial(rows)
            if count := self.scheduler.reserve(row, min(TRIAL, row.limit - row.num_new - 1, left)):
                asked.append((row, count))
        self.proposer.propose(asked)
        drafts = [Chunk(row, len(row.ids), len(row.ids) + len(row.draft)) for row, _ in asked if row.draft]
        return plan._replace(drafts=drafts)

    def see(self, plan: Plan, news: Sequence[NewToken], seconds: float) -> None:
        """Learn what became of a step's guesses, and take them back."""
        drawn: dict[tuple[int, int], int] = {}
        for new in news if plan.drafts else ():
            drawn[new.request, new.answer] = drawn.get((new.request, new.answer), 0) + 1
        drafted = []
        for row in (chunk.row for chunk in plan.drafts):
            right = drawn[row.number, row.answer] - 1
            drafted.append((self._experiences[row], len(row.draft), right))
            self.counts.guesses += len(row.draft)
            self.counts.right += right
            self.counts.steps += 1
            row.draft = []
        if not plan.chunks:
            self.gauge.see(drafted, len(plan.decoding), seconds)

    def _next_trial(self, rows: Sequence[Row]) -> Row:
        """Return a row to guess for: each twice in turn, since its first guesses may cost more than others."""
        last, self._trial = self._trial, None
        if last is not None and last in rows:
            return last
        chosen = self._trial = min(rows, key=lambda row: self._experience(row).steps)
        return chosen

    def _experience(self, row: Row) -> Experience:
        return self._experiences.setdefault(row, Experience())


def _guessable(row: Row) -> bool:
    """Return whether a row may have guesses: room for one, and logits that no other token of the answer bends."""
    request = row.request
    return row.limit - row.num_new > 1 and request.mask is None and not request.shaping.bends_logits


class NgramProposer:
    """Guesses that what followed the last few tokens before will follow them again (Saxena 2023, prompt look-up).

    The longest run of `sizes` tokens that has come before, in prompt or answer, and of its places the latest; where
    the run of guesses reaches the end of the text it goes on with itself.
    """

    def __init__(self, sizes: Sequence[int] = (4, 3, 2)) -> None:
        """Begin without texts."""
        self._sizes = sizes
        self._places: WeakKeyDictionary[Row, tuple[list[int], dict[tuple[int, ...], int]]] = WeakKeyDictionary()

    def propose(self, asked: Sequence[tuple[Row, int]]) -> None:
        """As `Proposer`."""
        for row, count in asked:
            place = self._find(row)
            if place is not None:
                for at in range(place, place + count):
                    row.draft.append(row.ids[at] if at < len(row.ids) else row.draft[at - len(row.ids)])

    def _find(self, row: Row) -> int | None:
        """Return the place behind the latest earlier run like the text's last."""
        ids = row.ids
        (entered,), places = self._places.setdefault(row, ([min(self._sizes)], {}))
        for end in range(entered, len(ids)):  # the text's own last run is entered once something follows it
            for size in self._sizes:
                if size <= end:
                    places[tuple(ids[end - size : end])] = end
        self._places[row][0][0] = max(entered, len(ids))
        return next((places[run] for size in self._sizes if (run := tuple(ids[-size:])) in places), None)
