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
from sanbai.generation.stems import Stems
from sanbai.model.paged import Chunks, PagedCache, Pages
from sanbai.model.paged_memory import Memory, MemoryLanes, StepMemory, put_together
from sanbai.model.stems import StepStems
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
        self,
        cache: PagedCache,
        window: Window,
        device: torch.device,
        *,
        stems: Window | None = None,
        memory: MemoryLanes | None = None,
    ) -> None:
        """Begin with nobody in the window.

        Args:
            cache: the blocks.
            window: of the rows that read one token.
            device: of all tensors.
            stems: a window of what rows begin with together, where the model can read it apart.
            memory: where the rows have an encoder's result.
        """
        self._cache, self._window, self._device, self._memory = cache, window, device, memory
        self._stem_window, self._stems = stems, Stems(cache.block_size)
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
        in_lanes = [row.num_cached - self._stems.start(lane) for lane, row in enumerate(plan.decoding)]
        pages = Pages(
            cache=self._cache,
            window=self._window,
            slot_N=self._tensor(slots),
            position_D=self._tensor(in_lanes),
            chunks=[self._pad(group, starts[chunks.index(group[0])]) for group in groups],
            memory=None if self._memory is None else _memories(self._memory, plan.decoding, groups),
            stems=self._step_stems(),
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
        self._stems.clear()
        if self._stem_window is not None:
            self._stem_window.clear()
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
        self._show_stems(rows, new)
        size, starts = self._cache.block_size, [self._stems.start(lane) for lane in range(len(rows))]
        if rows:
            self._window.fit(
                len(rows), max(row.num_cached - start for row, start in zip(rows, starts, strict=True)) + 1
            )
        self._load(
            self._window,
            new,
            [rows[lane].blocks[starts[lane] // size : -(-rows[lane].num_cached // size)] for lane in new],
        )
        if behind:  # guesses that came true were written into the blocks alone
            slots = [rows[lane].blocks[at // size] * size + at % size for lane, at in behind]
            kept = self._cache.read_slots(self._tensor(slots))
            lanes, positions = [lane for lane, _ in behind], [at - starts[lane] for lane, at in behind]
            self._window.place(self._tensor(lanes), self._tensor(positions), kept)

    def _show_stems(self, rows: Sequence[Row], new: Sequence[int]) -> None:
        if self._stem_window is None:
            return
        places, stems = self._stems.show(rows, new), self._stems.in_place
        if stems:
            self._stem_window.fit(len(stems), max(len(stem.blocks) for stem in stems) * self._cache.block_size)
        self._load(self._stem_window, places, [stems[place].blocks for place in places])

    def _step_stems(self) -> StepStems | None:
        stems = self._stems.in_place
        if self._stem_window is None or not stems:
            return None
        members: dict[int, list[int]] = {id(stem): [] for stem in stems}
        for lane, stem in enumerate(self._stems.of_lane):
            if stem is not None:
                members[id(stem)].append(lane)
        lengths = [len(stem.blocks) * self._cache.block_size for stem in stems]
        return StepStems(self._stem_window, lengths, list(members.values()))

    def _load(self, window: Window, lanes: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        """Fill lanes from blocks."""
        if any(tables):
            lane_R, block_RM = self._tensor(lanes), self._table(tables)
            for layer in range(self._cache.num_layers):
                window.load(layer, lane_R, *self._cache.read(layer, block_RM))

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
