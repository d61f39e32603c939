"""The keys and values of the texts that are being written, side by side: what a decoding step reads without gathering.

On a CPU gathering blocks in every layer of every step costs as much as attention itself. So each text that is in the
midst of its answer has a lane here, filled once from its blocks and from then on written first; the blocks get a copy
at the end of each step. Between steps they are the truth, and a lane can be thrown away.

A step reads all the room there is and masks what is not filled: a product copies an operand that does not lie
contiguous, which at 64 lanes takes longer than the product. So the room follows the longest text closely.

Shapes: L layers, W lanes, C positions of room, D lanes in use, G key-value heads, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanbai.model.config import ModelConfig

ROOM = 32
"""Positions that the room grows by; smaller ones copy more often, larger ones read more that is masked."""


class Window:
    """Grows and shrinks as needed; written in place."""

    def __init__(self, config: ModelConfig, *, dtype: torch.dtype, device: torch.device | str) -> None:
        """Begin without room."""
        shape = (config.num_layers, 0, config.num_kv_heads, 0, config.head_width)
        self._keys_LWGCK = torch.zeros(shape, dtype=dtype, device=device)
        self._values_LWGCK = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def num_positions(self) -> int:
        """C, as many keys as a query is offered."""
        return self._keys_LWGCK.shape[3]

    def fit(self, num_lanes: int, num_positions: int) -> None:
        """Make room for so much, and not for much more; what lies in the lanes stays."""
        W, C = self._keys_LWGCK.shape[1], self.num_positions
        lanes = W if num_lanes <= W else max(num_lanes, 2 * W)
        room = -(-num_positions // ROOM) * ROOM
        if lanes == W and room <= C < 2 * room:
            return
        room = room if room > C or 2 * room <= C else C
        self._keys_LWGCK, self._values_LWGCK = (
            _resized(kept, lanes, room) for kept in (self._keys_LWGCK, self._values_LWGCK)
        )

    def load(self, layer: int, lane_R: Tensor, k_RGSK: Tensor, v_RGSK: Tensor) -> None:
        """Fill lanes of one layer with S positions from the first on; those beyond the room are left out."""
        num_positions = min(k_RGSK.shape[2], self.num_positions)
        self._keys_LWGCK[layer][lane_R, :, :num_positions] = k_RGSK[:, :, :num_positions]
        self._values_LWGCK[layer][lane_R, :, :num_positions] = v_RGSK[:, :, :num_positions]

    def place(self, lane_A: Tensor, position_A: Tensor, k_LAGK: Tensor, v_LAGK: Tensor) -> None:
        """Fill single positions of lanes in all layers."""
        self._keys_LWGCK[:, lane_A, :, position_A] = k_LAGK.transpose(0, 1)
        self._values_LWGCK[:, lane_A, :, position_A] = v_LAGK.transpose(0, 1)

    def places(self, position_D: Tensor) -> Tensor:
        """Return where `write` puts one position of each of the first D lanes, head by head."""
        G, C = self._keys_LWGCK.shape[2:4]
        lane_D, head_G = (torch.arange(count, device=position_D.device) for count in (len(position_D), G))
        return ((lane_D.unsqueeze(-1) * G + head_G) * C + position_D.unsqueeze(-1)).flatten()

    def write(self, layer: int, place_A: Tensor, k_DGK: Tensor, v_DGK: Tensor) -> tuple[Tensor, Tensor]:
        """Store one position of each of the first D lanes; return k_DGCK and v_DGCK, uncopied."""
        num_lanes, K = len(k_DGK), k_DGK.shape[-1]
        for kept, new in ((self._keys_LWGCK, k_DGK), (self._values_LWGCK, v_DGK)):
            kept[layer].view(-1, K).index_copy_(0, place_A, new.reshape(-1, K))
        return self._keys_LWGCK[layer, :num_lanes], self._values_LWGCK[layer, :num_lanes]

    def clear(self) -> None:
        """Give the room back."""
        self._keys_LWGCK, self._values_LWGCK = (_resized(kept, 0, 0) for kept in (self._keys_LWGCK, self._values_LWGCK))


def _resized(kept_LWGCK: Tensor, num_lanes: int, num_positions: int) -> Tensor:
    L, W, G, C, K = kept_LWGCK.shape
    lanes, positions = min(W, num_lanes), min(C, num_positions)
    resized = kept_LWGCK.new_zeros((L, num_lanes, G, num_positions, K))
    resized[:, :lanes, :, :positions] = kept_LWGCK[:, :lanes, :, :positions]
    return resized
