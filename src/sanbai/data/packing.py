"""Packing: documents or conversations into rows of one length, whole where they fit, blind to their neighbours.

Best fit, longest first: a piece goes into the row that it fills best (Ding et al. 2024, arXiv:2404.10830, who show that
cutting less teaches more than padding less costs). Items longer than a row are cut into rows' lengths first.
The plan of an epoch follows from its seed alone, so a run resumes from two numbers, epoch and row.

Shapes: B rows, T tokens a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sanbai.foundation.errors import DataError
from sanbai.foundation.seeds import numpy_generator
from sanbai.text.chat_template import EncodedConversation

#: Items packed together: large enough that best fit leaves next to nothing, small enough that epochs mix and the plan
#: of a huge corpus fits in memory.
WINDOW_ITEMS = 65_536


#: All of an item.
WHOLE = slice(None)


class Items(Protocol):
    """What can be packed: sequences of tokens with a mask of what is to be learned."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each item."""

    def tokens(self, index: int, piece: slice = WHOLE) -> NDArray[np.int64]:
        """Return an item's token ids, or a piece of them."""

    def loss_mask(self, index: int, piece: slice = WHOLE) -> NDArray[np.bool_]:
        """Return which of an item's tokens, or of a piece of it, are to be learned."""


class EncodedItems:
    """Conversations in memory, as items to pack."""

    def __init__(self, conversations: Sequence[EncodedConversation]) -> None:
        self._conversations = conversations
        self.lengths: NDArray[np.int64] = np.array([len(each.tokens) for each in conversations], dtype=np.int64)

    def tokens(self, index: int, piece: slice = WHOLE) -> NDArray[np.int64]:
        """Return a conversation's token ids, or a piece of them."""
        return np.array(self._conversations[index].tokens[piece], dtype=np.int64)

    def loss_mask(self, index: int, piece: slice = WHOLE) -> NDArray[np.bool_]:
        """Return which of a conversation's tokens, or of a piece of it, are to be learned."""
        return np.array(self._conversations[index].loss_mask[piece], dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows ready for a model.

    Attributes:
        tokens_BT: int64 ids; the pad id where nothing is.
        segments_BT: int64, 1, 2, ... for the pieces of a row in order, 0 on padding; attention stays within a segment.
        positions_BT: int64, from 0 in each segment.
        loss_mask_BT: bool, whether the *token at this place* is a target, so compare it with the logits one place
            before. Never true on the first token of a segment, which nothing precedes, nor on padding.
        prefix_BT: bool, tokens that are seen from everywhere in their segment, or None where there are none.
    """

    tokens_BT: NDArray[np.int64]
    segments_BT: NDArray[np.int64]
    positions_BT: NDArray[np.int64]
    loss_mask_BT: NDArray[np.bool_]
    prefix_BT: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Which piece of which item lies where, for one epoch.

    Pieces of row r are `row_bounds[r]` to `row_bounds[r + 1]`, in the order in which they lie.
    """

    row_length: int
    items_N: NDArray[np.int64]
    starts_N: NDArray[np.int64]
    lengths_N: NDArray[np.int64]
    row_bounds: NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        """Rows in the epoch."""
        return len(self.row_bounds) - 1

    @property
    def utilisation(self) -> float:
        """Share of the rows' places that hold a token, in (0, 1]."""
        return float(self.lengths_N.sum()) / (self.num_rows * self.row_length)


def plan_epoch(
    lengths: NDArray[np.int64], *, row_length: int, seed: int, epoch: int, window_items: int = WINDOW_ITEMS
) -> Plan:
    """Lay out every token of every item exactly once.

    Items are shuffled, packed window by window, and the rows shuffled again.

    Args:
        lengths: tokens of each item; items of length 0 are left out.
        row_length: T, at least 2.
        seed: the run's.
        epoch: from 0; another epoch is another order.
        window_items: items packed together.

    Raises:
        DataError: there is no token at all.
    """
    if not lengths.any():
        raise DataError("nothing to pack: no item holds a token; check the corpus or the demonstrations")
    generator = numpy_generator(seed, "packing", epoch)
    order = generator.permutation(len(lengths))
    items: list[NDArray[np.int64]] = []
    starts: list[NDArray[np.int64]] = []
    sizes: list[NDArray[np.int64]] = []
    rows: list[NDArray[np.int64]] = []
    num_rows = 0
    for first in range(0, len(order), window_items):
        item_N, start_N, length_N = cut_into_pieces(order[first : first + window_items], lengths, row_length)
        row_N = num_rows + best_fit(length_N, row_length)
        num_rows = int(row_N.max(initial=num_rows - 1)) + 1
        items.append(item_N)
        starts.append(start_N)
        sizes.append(length_N)
        rows.append(row_N)
    place_of_row = generator.permutation(num_rows)
    row_N = place_of_row[np.concatenate(rows)]
    by_row = np.argsort(row_N, kind="stable")
    row_bounds = np.concatenate([[0], np.cumsum(np.bincount(row_N, minlength=num_rows))]).astype(np.int64)
    return Plan(
        row_length,
        np.concatenate(items)[by_row],
        np.concatenate(starts)[by_row],
        np.concatenate(sizes)[by_row],
        row_bounds,
    )


def cut_into_pieces(
    order: NDArray[np.int64], lengths: NDArray[np.int64], row_length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut the items named in `order` into pieces of at most `row_length` tokens.

    Returns:
        item, start within the item, and length of each of N pieces; the last piece of an item is the short one.
    """
    num_pieces = -(-lengths[order] // row_length)
    item_N = np.repeat(order, num_pieces)
    first_piece = np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
    start_N = (np.arange(len(item_N)) - first_piece) * row_length
    return item_N, start_N, np.minimum(lengths[item_N] - start_N, row_length)


def best_fit(lengths_N: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """Return the row of each piece: longest first, each into the fullest row that still holds it, else a new row.

    Rows of equal space are taken in last-in, first-out order; pieces of equal length in the order given. Spaces are
    found as the lowest set bit of an integer, which makes a piece cost a constant for rows up to some thousands.

    Args:
        lengths_N: in [1, capacity].
        capacity: T.
    """
    row_N = np.empty(len(lengths_N), dtype=np.int64)
    rows_by_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces = 0  # bit s is set while some row has exactly s places left
    num_rows = 0
    for piece in np.argsort(-lengths_N, kind="stable").tolist():
        length = int(lengths_N[piece])
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_space[space].pop()
            if not rows_by_space[space]:
                spaces ^= 1 << space
        else:
            space, row = capacity, num_rows
            num_rows += 1
        row_N[piece] = row
        if left := space - length:
            rows_by_space[left].append(row)
            spaces |= 1 << left
    return row_N


def fill_rows(items: Items, plan: Plan, rows: Sequence[int], *, pad_id: int) -> PackedBatch:
    """Return the given rows of a plan, filled from the items."""
    shape = (len(rows), plan.row_length)
    tokens_BT = np.full(shape, pad_id, dtype=np.int64)
    segments_BT = np.zeros(shape, dtype=np.int64)
    positions_BT = np.zeros(shape, dtype=np.int64)
    loss_mask_BT = np.zeros(shape, dtype=np.bool_)
    for line, row in enumerate(rows):
        place = 0
        for segment, piece in enumerate(range(plan.row_bounds[row], plan.row_bounds[row + 1]), start=1):
            item, start, length = int(plan.items_N[piece]), int(plan.starts_N[piece]), int(plan.lengths_N[piece])
            here = slice(place, place + length)
            tokens_BT[line, here] = items.tokens(item, slice(start, start + length))
            segments_BT[line, here] = segment
            positions_BT[line, here] = np.arange(length)
            loss_mask_BT[line, here] = items.loss_mask(item, slice(start, start + length))
            loss_mask_BT[line, place] = False
            place += length
    return PackedBatch(tokens_BT, segments_BT, positions_BT, loss_mask_BT)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a run stands in its data: the next row to read. Two numbers, so that they fit into any checkpoint."""

    epoch: int = 0
    row: int = 0

    def to_state(self) -> dict[str, int]:
        """Return the cursor as JSON values."""
        return {"epoch": self.epoch, "row": self.row}

    @classmethod
    def from_state(cls, state: dict[str, int]) -> Cursor:
        """Return the cursor that `to_state` described."""
        return cls(int(state["epoch"]), int(state["row"]))


class PackedBatches:
    """Batches of packed rows without end: epoch after epoch, every row once in each.

    A batch at an epoch's end goes on with the next epoch. `cursor` says where the next batch begins; another object
    started from it gives the same batches.
    """

    def __init__(
        self,
        items: Items,
        *,
        row_length: int,
        batch_rows: int,
        seed: int,
        pad_id: int,
        cursor: Cursor | None = None,
        window_items: int = WINDOW_ITEMS,
    ) -> None:
        self._items = items
        self._row_length = row_length
        self._batch_rows = batch_rows
        self._seed = seed
        self._pad_id = pad_id
        self._window_items = window_items
        self.cursor = cursor or Cursor()
        self.plan = self._plan(self.cursor.epoch)

    def __iter__(self) -> Iterator[PackedBatch]:
        """Return itself."""
        return self

    def __next__(self) -> PackedBatch:
        """Return the next `batch_rows` rows and move the cursor past them."""
        parts = []
        wanted = self._batch_rows
        while wanted:
            rows = range(self.cursor.row, min(self.cursor.row + wanted, self.plan.num_rows))
            parts.append(fill_rows(self._items, self.plan, rows, pad_id=self._pad_id))
            wanted -= len(rows)
            self._advance(rows.stop)
        return PackedBatch(
            np.concatenate([part.tokens_BT for part in parts]),
            np.concatenate([part.segments_BT for part in parts]),
            np.concatenate([part.positions_BT for part in parts]),
            np.concatenate([part.loss_mask_BT for part in parts]),
        )

    @property
    def epochs(self) -> float:
        """How often the items were read."""
        return self.cursor.epoch + self.cursor.row / self.plan.num_rows

    def _advance(self, row: int) -> None:
        if row < self.plan.num_rows:
            self.cursor = Cursor(self.cursor.epoch, row)
            return
        self.cursor = Cursor(self.cursor.epoch + 1, 0)
        self.plan = self._plan(self.cursor.epoch)

    def _plan(self, epoch: int) -> Plan:
        return plan_epoch(
            self._items.lengths,
            row_length=self._row_length,
            seed=self._seed,
            epoch=epoch,
            window_items=self._window_items,
        )
