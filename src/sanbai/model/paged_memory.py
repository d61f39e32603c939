"""What an encoder has read for the texts of a step: cross-attention's keys and values, text by text.

They are made once, when a text begins, and belong to it until it ends. The texts that are being written have theirs
copied side by side into lanes, as their own keys and values (`window.py`); chunks, which are few, have theirs put
together in each step.

Shapes: L layers, W lanes, R texts, G key-value heads, M positions of an encoder's result, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sanbai.model.config import ModelConfig

ROOM = 16
"""Positions that lanes grow by."""


class Memory(NamedTuple):
    """One text's."""

    k_LGMK: Tensor
    v_LGMK: Tensor

    @property
    def num_positions(self) -> int:
        """M."""
        return self.k_LGMK.shape[2]


class Together(NamedTuple):
    """Those of several texts, padded to one length."""

    k_LRGMK: Tensor
    v_LRGMK: Tensor
    mask_R11M: Tensor
    """0 on what was read, -inf on padding."""

    def of(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return k_RGMK, v_RGMK and the mask."""
        return self.k_LRGMK[layer], self.v_LRGMK[layer], self.mask_R11M


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Of one step."""

    decoding: Together | None
    """Of the texts in the window, in its order."""
    chunks: Sequence[Together]
    """One an entry of `Pages.chunks`."""

    def of_decoding(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return k_DGMK, v_DGMK and the mask."""
        assert self.decoding is not None
        return self.decoding.of(layer)


class MemoryLanes:
    """Grows as needed; written in place."""

    def __init__(self, config: ModelConfig, *, dtype: torch.dtype, device: torch.device | str) -> None:
        """Begin without room."""
        shape = (config.num_layers, 0, config.num_kv_heads, 0, config.head_width)
        self._kept = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(2)]
        self._shown: list[Memory] = []

    def show(self, memories: Sequence[Memory]) -> Together:
        """Give the i-th text the i-th lane; copy in those that have not had it, which is told by identity."""
        num_lanes, longest = len(memories), max(memory.num_positions for memory in memories)
        L, W, G, M, K = self._kept[0].shape
        room = -(-longest // ROOM) * ROOM
        if num_lanes > W or room > M or 2 * room <= M:
            lanes = max(num_lanes, W)
            self._kept = [kept.new_zeros((L, lanes, G, room, K)) for kept in self._kept]
            self._shown = []
        for lane, memory in enumerate(memories):
            if lane >= len(self._shown) or self._shown[lane] is not memory:
                for kept, new in zip(self._kept, memory, strict=True):
                    kept[:, lane, :, : memory.num_positions] = new
        self._shown = list(memories)
        keys, values = (kept[:, :num_lanes] for kept in self._kept)
        return Together(keys, values, _mask(memories, keys))

    def clear(self) -> None:
        """Give the room back."""
        self._kept = [kept[:, :0, :, :0].clone() for kept in self._kept]
        self._shown = []


def put_together(memories: Sequence[Memory]) -> Together:
    """Return those of several texts in memory of their own."""
    longest = max(memory.num_positions for memory in memories)
    keys, values = (
        torch.stack([torch.nn.functional.pad(x_LGMK, (0, 0, 0, longest - x_LGMK.shape[2])) for x_LGMK in column], dim=1)
        for column in zip(*memories, strict=True)
    )
    return Together(keys, values, _mask(memories, keys))


def _mask(memories: Sequence[Memory], like_LRGMK: Tensor) -> Tensor:
    length_R1 = torch.tensor([[memory.num_positions] for memory in memories], device=like_LRGMK.device)
    hidden_RM = torch.arange(like_LRGMK.shape[3], device=like_LRGMK.device) >= length_R1
    mask_RM = torch.zeros(hidden_RM.shape, dtype=like_LRGMK.dtype, device=like_LRGMK.device)
    return mask_RM.masked_fill_(hidden_RM, float("-inf"))[:, None, None]
