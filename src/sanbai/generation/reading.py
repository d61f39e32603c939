"""From a plan to the tensors of one pass: tokens, positions, places in the cache, tables of blocks.

Shapes: as in `model/paged.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from sanbai.generation.row import Row
from sanbai.generation.scheduler import Chunk, Plan
from sanbai.model.paged import Chunks, PagedCache, Pages
from sanbai.model.window import Window


class Reading(NamedTuple):
    """What goes into the model."""

    token_N1: Tensor
    position_N1: Tensor
    pages: Pages
    chunks: list[Chunk]
    """The plan's, in the order of their tokens, which follow those of the decoding rows."""
    starts: list[int]
    """Where each chunk's tokens begin among the N."""

    @property
    def ends(self) -> list[int]:
        """Where each chunk's last token is among the N; before the step is accounted for."""
        return [start + _length(chunk) - 1 for chunk, start in zip(self.chunks, self.starts, strict=True)]


class Arranger:
    """Prepares steps, and keeps the window in the order of the decoding rows."""

    def __init__(self, cache: PagedCache, window: Window, device: torch.device) -> None:
        """Begin with nobody in the window."""
        self._cache, self._window, self._device = cache, window, device
        self._leases: list[object] = []

    def prepare(self, plan: Plan) -> Reading:
        """Return the tensors of a step; rows new to the window are copied into it."""
        # Chunks within a factor of two in length are padded together.
        chunks = sorted(plan.chunks, key=_length_class)
        groups = [list(group) for _, group in groupby(chunks, key=_length_class)]
        ranges = [(row, row.num_cached, row.num_cached + 1) for row in plan.decoding]
        ranges += [(row, row.num_cached, end) for row, end in chunks]
        starts, total = [], len(plan.decoding)
        for chunk in chunks:
            starts.append(total)
            total += _length(chunk)
        size = self._cache.block_size
        tokens = [token for row, start, end in ranges for token in row.ids[start:end]]
        positions = [position for _, start, end in ranges for position in range(start, end)]
        slots = [row.blocks[at // size] * size + at % size for row, start, end in ranges for at in range(start, end)]
        self._show(plan.decoding)
        position_N1 = self._tensor(positions).unsqueeze(-1)
        pages = Pages(
            cache=self._cache,
            window=self._window,
            slot_N=self._tensor(slots),
            position_D=position_N1[: len(plan.decoding), 0],
            chunks=[self._pad(group, starts[chunks.index(group[0])]) for group in groups],
        )
        return Reading(self._tensor(tokens).unsqueeze(-1), position_N1, pages, chunks, starts)

    def clear(self) -> None:
        """Forget the window's contents."""
        self._leases = []
        self._window.clear()

    def _pad(self, group: Sequence[Chunk], first: int) -> Chunks:
        lengths = [_length(chunk) for chunk in group]
        longest, size = max(lengths), self._cache.block_size
        offset_T = torch.arange(longest, device=self._device)
        length_R1 = self._tensor(lengths).unsqueeze(-1)
        start_R1 = self._tensor([row.num_cached for row, _ in group]).unsqueeze(-1)
        before_R1 = length_R1.cumsum(dim=0) - length_R1
        real_RT = offset_T < length_R1
        tables = [row.blocks[: -(-end // size)] for row, end in group]
        return Chunks(
            block_RM=self._table(tables),
            position_RT=start_R1 + offset_T,
            token_RT=torch.where(real_RT, first + before_R1 + offset_T, first),
            real_A=real_RT.flatten().nonzero().squeeze(-1),
        )

    def _show(self, rows: Sequence[Row]) -> None:
        """Give the i-th row the i-th lane; copy in those that have not had it."""
        leases = [row.lease for row in rows]
        new = [
            lane for lane, lease in enumerate(leases) if lane >= len(self._leases) or lease is not self._leases[lane]
        ]
        self._leases = leases
        if rows:
            self._window.fit(len(rows), max(row.num_cached for row in rows) + 1)
        if new:
            size = self._cache.block_size
            lane_R = self._tensor(new)
            block_RM = self._table([rows[lane].blocks[: -(-rows[lane].num_cached // size)] for lane in new])
            for layer in range(self._cache.num_layers):
                self._window.load(layer, lane_R, *self._cache.read(layer, block_RM))

    def _table(self, tables: Sequence[Sequence[int]]) -> Tensor:
        width = max(map(len, tables))
        padded = [[*table, *[0] * (width - len(table))] for table in tables]
        return torch.tensor(padded, dtype=torch.int64, device=self._device)

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _length(chunk: Chunk) -> int:
    return chunk.end - chunk.row.num_cached


def _length_class(chunk: Chunk) -> int:
    return _length(chunk).bit_length()
