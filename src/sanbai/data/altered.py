"""Packed rows, altered row by row: what is hidden in a row follows from the seed and the row's number alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np

from sanbai.data.packing import Cursor, PackedBatch, PackedBatches
from sanbai.foundation.seeds import numpy_generator

Altered = TypeVar("Altered")

#: A packed batch and a generator for each of its rows -> the batch that a model is given.
Alter = Callable[[PackedBatch, list[np.random.Generator]], Altered]


class AlteredBatches(Generic[Altered]):
    """Batches of packed rows without end, each passed through one function.

    Rows are numbered from the run's first on, over epochs, so that the same row is altered otherwise when it comes
    again, and equally whatever the batch's size.
    """

    def __init__(self, packed: PackedBatches, alter: Alter[Altered], *, seed: int, first_row: int) -> None:
        """Start at a row.

        Args:
            packed: where rows come from; already at its place.
            alter: the function.
            seed: of the alterations.
            first_row: rows read before.
        """
        self._packed, self._alter, self._seed, self._row = packed, alter, seed, first_row

    def __iter__(self) -> Iterator[Altered]:
        """Return itself."""
        return self

    def __next__(self) -> Altered:
        """Return the next batch."""
        packed = next(self._packed)
        numbers = range(self._row, self._row + len(packed.tokens_BT))
        self._row = numbers.stop
        return self._alter(packed, [numpy_generator(self._seed, "row", number) for number in numbers])

    @property
    def cursor(self) -> Cursor:
        """Where the packed rows stand."""
        return self._packed.cursor

    @property
    def epochs(self) -> float:
        """How often the items were read."""
        return self._packed.epochs
