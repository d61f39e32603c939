"""The keys and values of the texts that are being written, side by side: what a decoding step reads without gathering.

On a CPU gathering blocks in every layer of every step costs as much as attention itself. So each text that is in the
midst of its answer has a lane here, filled once from its blocks and from then on written beside them. The blocks stay
the truth: a lane is a copy that can be thrown away. Keys lie transposed, as in `cache.py`.

Shapes: L layers, W lanes, C positions of room, D lanes in use, G key-value heads, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanbai.model.config import ModelConfig

ROOM = 128
#: Room grows by this many positions, at least by half.


class Window:
    """Grows as needed; written in place."""

    def __init__(self, config: ModelConfig, *, dtype: torch.dtype, device: torch.device | str) -> None:
        """Begin without room."""
        heads = (config.num_layers, 0, config.num_kv_heads)
        self._keys_LWGKC = torch.zeros((*heads, config.head_width, 0), dtype=dtype, device=device)
        self._values_LWGCK = torch.zeros((*heads, 0, config.head_width), dtype=dtype, device=device)

    def reserve(self, num_lanes: int, num_positions: int) -> None:
        """Make room; what lies in the lanes stays."""
        L, W, G, K, C = self._keys_LWGKC.shape
        if num_lanes <= W and num_positions <= C:
            return
        lanes = max(W, num_lanes)
        room = C if num_positions <= C else max(C + C // 2, -(-num_positions // ROOM) * ROOM)
        keys = self._keys_LWGKC.new_zeros((L, lanes, G, K, room))
        values = self._values_LWGCK.new_zeros((L, lanes, G, room, K))
        keys[:, :W, :, :, :C] = self._keys_LWGKC
        values[:, :W, :, :C] = self._values_LWGCK
        self._keys_LWGKC, self._values_LWGCK = keys, values

    def load(self, layer: int, lane_R: Tensor, k_RGSK: Tensor, v_RGSK: Tensor) -> None:
        """Fill lanes of one layer with S positions from the first on."""
        num_positions = k_RGSK.shape[2]
        self._keys_LWGKC[layer][lane_R, :, :, :num_positions] = k_RGSK.transpose(-1, -2)
        self._values_LWGCK[layer][lane_R, :, :num_positions] = v_RGSK

    def write(self, layer: int, position_D: Tensor, k_DGK: Tensor, v_DGK: Tensor) -> tuple[Tensor, Tensor]:
        """Store one position of each of the first D lanes; return k_DGCK and v_DGCK, uncopied."""
        num_lanes = len(position_D)
        lane_D = torch.arange(num_lanes, device=position_D.device)
        keys, values = self._keys_LWGKC[layer, :num_lanes], self._values_LWGCK[layer, :num_lanes]
        keys[lane_D, :, :, position_D] = k_DGK
        values[lane_D, :, position_D] = v_DGK
        return keys.transpose(-1, -2), values

    def clear(self) -> None:
        """Give the room back."""
        self._keys_LWGKC = self._keys_LWGKC[:, :0, ..., :0].clone()
        self._values_LWGCK = self._values_LWGCK[:, :0, :, :0].clone()
