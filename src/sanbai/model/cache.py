"""Keys and values of the positions already read, so that each new token costs one position's work.

Room for every position is taken once; writing is in place. Rows share one length: prompts of different lengths are
padded on the left with segment 0, which the mask hides. Keys lie transposed, positions innermost, as the product with
one query a row reads them: a decoding step's attention takes half the time of torch's at 64 rows and more.

Shapes: L layers, B rows, G key-value heads, C capacity in positions, S positions filled, T new ones, M positions of an
encoder's result, K head width.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from sanbai.foundation.errors import ModelError
from sanbai.model.config import ModelConfig


class KeyValueCache:
    """A live resource of one batch; `Transformer.forward` writes it."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        num_rows: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Take room for `capacity` positions of `num_rows` rows."""
        heads = (config.num_layers, num_rows, config.num_kv_heads)
        self._keys_LBGKC = torch.zeros((*heads, config.head_width, capacity), dtype=dtype, device=device)
        self._values_LBGCK = torch.zeros((*heads, capacity, config.head_width), dtype=dtype, device=device)
        self._segments_BC = torch.zeros((num_rows, capacity), dtype=torch.int64, device=device)
        self.length = 0
        """Positions filled in every layer."""
        self.memory: dict[int, tuple[Tensor, Tensor]] = {}
        """k_BGMK and v_BGMK of an encoder's result by layer; empty before the first pass."""
        self.memory_segments_BM: Tensor | None = None
        """The segments of an encoder's result."""

    @property
    def num_rows(self) -> int:
        """Rows held now."""
        return self._segments_BC.shape[0]

    @property
    def capacity(self) -> int:
        """Positions that fit."""
        return self._segments_BC.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the keys and values."""
        return self._values_LBGCK.dtype

    def append_segments(self, segments_BT: Tensor) -> Tensor:
        """Note the segments of T new positions and return segments_BS of all S = length + T.

        Raises:
            ModelError: they do not fit.
        """
        end = self.length + segments_BT.shape[1]
        if end > self.capacity:
            raise ModelError(
                f"a cache of {self.capacity} positions was asked to hold {end}; make it with more capacity"
            )
        self._segments_BC[:, self.length : end] = segments_BT
        return self._segments_BC[:, :end]

    def write(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values and return all S of them, k_BGSK and v_BGSK, uncopied."""
        start, end = self.length, self.length + k_BGTK.shape[2]
        self._keys_LBGKC[layer, ..., start:end] = k_BGTK.transpose(-1, -2)
        self._values_LBGCK[layer, :, :, start:end] = v_BGTK
        if start == 0:
            return k_BGTK, v_BGTK
        return self._keys_LBGKC[layer, ..., :end].transpose(-1, -2), self._values_LBGCK[layer, :, :, :end]

    def advance(self, num_positions: int) -> None:
        """Count T positions as filled, once every layer has written them."""
        self.length += num_positions

    def select(self, rows: Tensor) -> Self:
        """Keep these rows, in this order; a row may be named several times (answers that share a prompt) or never."""
        self._keys_LBGKC = self._keys_LBGKC.index_select(1, rows)
        self._values_LBGCK = self._values_LBGCK.index_select(1, rows)
        self._segments_BC = self._segments_BC.index_select(0, rows)
        self.memory = {
            layer: (k_BGMK.index_select(0, rows), v_BGMK.index_select(0, rows))
            for layer, (k_BGMK, v_BGMK) in self.memory.items()
        }
        if self.memory_segments_BM is not None:
            self.memory_segments_BM = self.memory_segments_BM.index_select(0, rows)
        return self
