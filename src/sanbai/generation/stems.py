"""Which of the texts being written begin with the same blocks, so that a step reads these once for all of them.

Answers to one prompt that enter the window together share a stem: the prompt's whole blocks. One that enters later
joins a stem that its own blocks begin with. A text keeps its stem until it leaves its lane; what it has behind the stem
lies in its lane alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from sanbai.generation.row import Row

WORTH = 512
"""Positions that are not read again, below which a stem is not worth its own products."""


class Stem:
    """Blocks that texts share; a stem is itself alone, whatever blocks another has had."""

    def __init__(self, blocks: Sequence[int]) -> None:
        self.blocks = list(blocks)


class Stems:
    """The stems in use, each in a place of its own."""

    def __init__(self, block_size: int) -> None:
        """Begin with none."""
        self._block_size = block_size
        self.of_lane: list[Stem | None] = []
        """Of each text in the window, in its order."""
        self.in_place: list[Stem] = []

    def show(self, rows: Sequence[Row], new: Sequence[int]) -> list[int]:
        """Give stems to the texts that are new to their lanes.

        Args:
            rows: all texts in the window.
            new: the lanes of those that are new.

        Returns:
            The places whose stems are new to them.
        """
        lanes = (*self.of_lane[: len(rows)], *[None] * (len(rows) - len(self.of_lane)))
        begun = set(new)
        # A stem that nobody has kept may have lost its blocks to others.
        kept = {id(stem): stem for lane, stem in enumerate(lanes) if stem is not None and lane not in begun}
        self.of_lane = [None if lane in begun else stem for lane, stem in enumerate(lanes)]
        alone: dict[int, list[int]] = {}
        for lane in new:
            blocks = rows[lane].blocks
            joined = next((stem for stem in kept.values() if blocks[: len(stem.blocks)] == stem.blocks), None)
            self.of_lane[lane] = joined
            if joined is None:
                alone.setdefault(rows[lane].number, []).append(lane)
        for siblings in alone.values():
            self._begin(rows, siblings)
        return self._settle()

    def start(self, lane: int) -> int:
        """Return the first position of a text that lies in its lane."""
        stem = self.of_lane[lane] if self.of_lane else None
        return 0 if stem is None else len(stem.blocks) * self._block_size

    def clear(self) -> None:
        """Forget all."""
        self.of_lane, self.in_place = [], []

    def _begin(self, rows: Sequence[Row], siblings: Sequence[int]) -> None:
        columns = zip(*(rows[lane].blocks for lane in siblings), strict=False)
        shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
        if (len(siblings) - 1) * len(shared) * self._block_size >= WORTH:
            stem = Stem(shared)
            for lane in siblings:
                self.of_lane[lane] = stem

    def _settle(self) -> list[int]:
        """Give each stem in use a place, the one it has where it has one; the last fill places that have come free."""
        used = dict.fromkeys(stem for stem in self.of_lane if stem is not None)
        before = self.in_place
        places: list[Stem | None] = [stem if stem in used else None for stem in before]
        places += [stem for stem in used if stem not in before]
        while None in places:
            last = places.pop()
            if last is not None:
                places[places.index(None)] = last
        self.in_place = [stem for stem in places if stem is not None]
        return [place for place, stem in enumerate(self.in_place) if before[place : place + 1] != [stem]]
