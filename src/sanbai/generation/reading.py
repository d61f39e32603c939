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
from sanbai.model.paged_memory import Memory, MemoryLanes, StepMemory, put_together
from sanbai.model.window import Window


class Reading(NamedTuple):
    """What goes into the model."""

    token_N1: Tensor
    position_N1: Tensor
    pages: Pages
    chunks: list[Chunk]
    """The plan's, drafts too, in the order of their tokens, which follow those of the decoding rows."""
    starts: list[int]
    """Where each chunk's tokens begin among the N."""
    wanted_A: Tensor | None
    """The tokens behind which somebody may draw: of each decoding row its own and its guesses, then the last of each
    of the plan's chunks, all in the plan's order. None where these are the N as they come."""

    def adapters(self, plan: Plan) -> list[str | None]:
        """Return whose adapter reads each of the N tokens."""
        names = [row.request.adapter for row in plan.decoding]
        return names + [chunk.row.request.adapter for chunk in self.chunks for _ in range(chunk.length)]


class Arranger:
    """Prepares steps, and keeps the window in the order of the decoding rows."""

    def __init__(
        self, cache: PagedCache, window: Window, device: torch.device, *, memory: MemoryLanes | None = None
    ) -> None:
        """Begin with nobody in the window; `memory` where the rows have an encoder's result."""
        self._cache, self._window, self._device, self._memory = cache, window, device, memory
        self._leases: list[object] = []
        self._filled: list[int] = []  # positions that each lane holds

    def prepare(self, plan: Plan) -> Reading:
        """Return the tensors of a step; rows new to the window are copied into it."""
        # Chunks within a factor of two in length are padded together.
        chunks = sorted(plan.chunks + plan.drafts, key=_length_class)
        groups = [list(group) for _, group in groupby(chunks, key=_length_class)]
        ranges = [Chunk(row, row.num_cached, row.num_cached + 1) for row in plan.decoding] + chunks
        starts, total = [], len(plan.decoding)
        for chunk in chunks:
            starts.append(total)
            total += chunk.length
        size = self._cache.block_size
        tokens = [token for row, start, end in ranges for token in row.tokens(start, end)]
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
            memory=None if self._memory is None else _memories(self._memory, plan.decoding, groups),
            drafted=bool(plan.drafts),
        )
        return Reading(
            token_N1=self._tensor(tokens).unsqueeze(-1),
            position_N1=position_N1,
            pages=pages,
            chunks=chunks,
            starts=starts,
            wanted_A=self._tensor(_wanted(plan, chunks, starts)) if chunks else None,
        )

    def clear(self) -> None:
        """Forget the window's contents."""
        self._leases, self._filled = [], []
        self._window.clear()
        if self._memory is not None:
            self._memory.clear()

    def _pad(self, group: Sequence[Chunk], first: int) -> Chunks:
        lengths = [chunk.length for chunk in group]
        longest, size = max(lengths), self._cache.block_size
        offset_T = torch.arange(longest, device=self._device)
        length_R1 = self._tensor(lengths).unsqueeze(-1)
        start_R1 = self._tensor([start for _, start, _ in group]).unsqueeze(-1)
        before_R1 = length_R1.cumsum(dim=0) - length_R1
        real_RT = offset_T < length_R1
        tables = [row.blocks[: -(-end // size)] for row, _, end in group]
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
        begun = set(new)
        behind = [
            (lane, at)
            for lane, filled in enumerate(self._filled[: len(rows)])
            if lane not in begun
            for at in range(filled, rows[lane].num_cached)
        ]
        self._leases, self._filled = leases, [row.num_cached + 1 for row in rows]
        if rows:
            self._window.fit(len(rows), max(row.num_cached for row in rows) + 1)
        if new:
            size = self._cache.block_size
            lane_R = self._tensor(new)
            block_RM = self._table([rows[lane].blocks[: -(-rows[lane].num_cached // size)] for lane in new])
            for layer in range(self._cache.num_layers):
                self._window.load(layer, lane_R, *self._cache.read(layer, block_RM))
        if behind:  # guesses that came true were written into the blocks alone
            size = self._cache.block_size
            slots = [rows[lane].blocks[at // size] * size + at % size for lane, at in behind]
            lanes, positions = zip(*behind, strict=True)
            kept = self._cache.read_slots(self._tensor(slots))
            self._window.place(self._tensor(lanes), self._tensor(positions), kept)

    def _table(self, tables: Sequence[Sequence[int]]) -> Tensor:
        width = max(map(len, tables))
        padded = [[*table, *[0] * (width - len(table))] for table in tables]
        return torch.tensor(padded, dtype=torch.int64, device=self._device)

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _wanted(plan: Plan, chunks: Sequence[Chunk], starts: Sequence[int]) -> list[int]:
    """Return `Reading.wanted_A`."""
    places_of = {id(chunk.row): range(start, start + chunk.length) for chunk, start in zip(chunks, starts, strict=True)}
    wanted: list[int] = []
    for place, row in enumerate(plan.decoding):
        wanted += [place, *places_of.get(id(row), ())]
    return wanted + [places_of[id(chunk.row)][-1] for chunk in plan.chunks]


def _length_class(chunk: Chunk) -> int:
    return chunk.length.bit_length()


def _memories(lanes: MemoryLanes, decoding: Sequence[Row], groups: Sequence[Sequence[Chunk]]) -> StepMemory:
    return StepMemory(
        decoding=lanes.show([_memory(row) for row in decoding]) if decoding else None,
        chunks=[put_together([_memory(chunk.row) for chunk in group]) for group in groups],
    )


def _memory(row: Row) -> Memory:
    assert row.memory is not None
    return row.memory
