"""Ragged sequences as dense rows: several in a row where they fit, blind to each other, so that padding is rare.

Shapes: N sequences, B rows, T positions a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sanbai.data.packing import best_fit

#: Rows are this long, where the model allows and no sequence is longer: attention still costs little, and best fit
#: leaves little.
ROW_TOKENS = 128
#: Rows' lengths are multiples of it, where the model allows: a CPU compiles a kernel for every size that it meets, and
#: on a matrix unit (AMX) that takes ten times as long as a small model's product.
WIDTH_STEP = 32
#: Sequences of like lengths get rows of the longest's length where that saves this share of all places; for less, a
#: width of their own is not worth its kernels.
SPARED = 1 / 8


@dataclass(frozen=True, slots=True)
class PackedSequences:
    """Sequences laid into rows.

    Attributes:
        tokens_BT: ids; 0 on padding, which is never looked at.
        segments_BT: 1, 2, ... for the sequences of a row, 0 on padding.
        start_N: index in the flattened B·T of each sequence's first token.
        length_N: tokens of each sequence.
    """

    tokens_BT: Tensor
    segments_BT: Tensor
    start_N: Tensor
    length_N: Tensor

    def last(self) -> Tensor:
        """Return the index in the flattened B·T of each sequence's last token, shape N."""
        return self.start_N + self.length_N - 1


def pack_sequences(
    sequences: Sequence[Sequence[int]], *, context: int, device: torch.device | str = "cpu"
) -> PackedSequences:
    """Lay sequences into as few rows as best fit finds, of `ROW_TOKENS` or as long as the longest sequence.

    Args:
        sequences: token ids, at least one each.
        context: positions that the model has; rows are no longer, unless a sequence is (the model then says so).
        device: where the tensors go.
    """
    length_N = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    width, row_N = _choose_rows(length_N, context)
    num_rows = int(row_N.max()) + 1
    tokens_BT = np.zeros((num_rows, width), dtype=np.int64)
    segments_BT = np.zeros((num_rows, width), dtype=np.int64)
    start_N = np.zeros_like(length_N)
    filled_B, num_segments_B = [0] * num_rows, [0] * num_rows
    for index, (sequence, row) in enumerate(zip(sequences, row_N.tolist(), strict=True)):
        start, end = filled_B[row], filled_B[row] + len(sequence)
        num_segments_B[row] += 1
        tokens_BT[row, start:end] = sequence
        segments_BT[row, start:end] = num_segments_B[row]
        start_N[index] = row * width + start
        filled_B[row] = end
    arrays = (tokens_BT, segments_BT, start_N, length_N)
    return PackedSequences(*(torch.from_numpy(array).to(device) for array in arrays))


def row_width(longest: int, context: int) -> int:
    """Return the length of rows that hold a sequence: a multiple of `WIDTH_STEP` if the context has room for it."""
    return max(longest, min(-(-longest // WIDTH_STEP) * WIDTH_STEP, context))


def _choose_rows(length_N: NDArray[np.int64], context: int) -> tuple[int, NDArray[np.int64]]:
    """Return how long rows are, and each sequence's row."""
    longest = row_width(int(length_N.max()), context)
    wide = max(longest, min(ROW_TOKENS, context))
    wide_row_N, narrow_row_N = best_fit(length_N, wide), best_fit(length_N, longest)
    places, narrow_places = wide * (wide_row_N.max() + 1), longest * (narrow_row_N.max() + 1)
    if narrow_places <= (1 - SPARED) * places:
        return longest, narrow_row_N
    return wide, wide_row_N


def group_by_tokens(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Cut items, in their order, into groups of at most `max_tokens` tokens; an item larger than that stands alone.

    As few groups as that allows, and among those ways the one whose largest group is smallest, so that groups computed
    side by side end together.
    """
    groups = _fill(lengths, max_tokens)
    low, high = max(lengths, default=0), max_tokens
    while low < high:
        middle = (low + high) // 2
        tighter = _fill(lengths, middle)
        if len(tighter) == len(groups):
            groups, high = tighter, middle
        else:
            low = middle + 1
    return groups


def _fill(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Open a group when the next item does not fit the last one."""
    groups: list[list[int]] = []
    num_tokens = 0
    for item, length in enumerate(lengths):
        if not groups or num_tokens + length > max_tokens:
            groups.append([])
            num_tokens = 0
        groups[-1].append(item)
        num_tokens += length
    return groups
