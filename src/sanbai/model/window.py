"""The keys and values of the texts that are being written, side by side: what a decoding step reads without gathering.

On a CPU gathering blocks in every layer of every step costs as much as attention itself. So each text that is in the
midst of its answer has a lane here, filled once from its blocks and from then on written first; the blocks get a copy
at the end of each step. Between steps they are the truth, and a lane can be thrown away. Another window holds what
several texts begin with (`stems.py`); their lanes hold what follows.

A step reads all the room there is and masks what is not filled: a product copies an operand that does not lie
contiguous, which at 64 lanes takes longer than the product. So the room follows the longest text closely. (On a matrix
unit attention is no batched product (`attention.py`), copies nothing, and reads only as far as the longest text.)

Few lanes are kept in float32 where the model is in bfloat16 and the CPU has no matrix unit: a batched product of 6
heads takes 4 microseconds then and 17 in bfloat16, of 384 heads it takes longer.

Shapes: L layers, W lanes, C positions of room, of which a query is offered S, D lanes in use, G key-value heads, K head
width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanbai.foundation.device import has_matrix_tiles
from sanbai.model.config import ModelConfig

ROOM = 32
"""Positions that the room grows by; smaller ones copy more often, larger ones read more that is masked."""
FEW = 8
"""Lanes that are kept in float32."""


class Window:
    """Grows and shrinks as needed; written in place."""

    def __init__(self, config: ModelConfig, *, dtype: torch.dtype, device: torch.device | str, max_lanes: int) -> None:
        """Begin without room.

        Args:
            config: of the model.
            dtype: of many lanes.
            device: where they lie.
            max_lanes: that will be asked for.
        """
        self._dtype, self._max_lanes = dtype, max_lanes
        self._first_D2G: dict[int, Tensor] = {}  # places of position 0, for the last D asked for
        shape = (config.num_layers, 2, 0, config.num_kv_heads, 0, config.head_width)
        self._kept_L2WGCK = torch.zeros(shape, dtype=dtype, device=device)  # keys, then values
        self._num_positions = 0
        self._on_tiles = has_matrix_tiles(self._kept_L2WGCK)

    @property
    def num_positions(self) -> int:
        """S, as many keys as a query is offered: all the room, or on a matrix unit as many as the longest text has."""
        return self._num_positions

    @property
    def dtype(self) -> torch.dtype:
        """Of what is kept now."""
        return self._kept_L2WGCK.dtype

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return self._kept_L2WGCK.device

    def fit(self, num_lanes: int, num_positions: int) -> None:
        """Make room for so much, and not for much more; what lies in the lanes stays."""
        _, _, W, _, C, _ = self._kept_L2WGCK.shape
        lanes = W if W // 4 < num_lanes <= W else num_lanes
        if num_lanes > W:  # growing clears and copies all, so that many lanes make room for as many more
            lanes = max(num_lanes, min(2 * (num_lanes if num_lanes > FEW else W), self._max_lanes))
        room = -(-num_positions // ROOM) * ROOM
        if room <= C < 2 * room:
            room = C
        self._num_positions = num_positions if self._on_tiles else room
        if (lanes, room) == (W, C):
            return
        dtype = self._dtype
        if lanes <= FEW and self._kept_L2WGCK.device.type == "cpu" and not self._on_tiles:
            dtype = torch.promote_types(dtype, torch.float32)
        self._resize(lanes, room, dtype)

    def load(self, layer: int, lane_R: Tensor, k_RGSK: Tensor, v_RGSK: Tensor) -> None:
        """Fill lanes of one layer with S positions from the first on; those beyond the room are left out."""
        num_positions = min(k_RGSK.shape[2], self.num_positions)
        for part, new_RGSK in enumerate((k_RGSK, v_RGSK)):
            self._kept_L2WGCK[layer, part][lane_R, :, :num_positions] = new_RGSK[:, :, :num_positions].to(self.dtype)

    def place(self, lane_A: Tensor, position_A: Tensor, kv_LANK: Tensor) -> None:
        """Fill single positions of lanes in all layers; N = 2 G heads, those of the keys first."""
        kv_LA2GK = torch.stack(kv_LANK.to(self.dtype).chunk(2, dim=2), dim=2)
        self._kept_L2WGCK[:, :, lane_A, :, position_A] = kv_LA2GK.transpose(0, 1)

    def places(self, position_D: Tensor) -> Tensor:
        """Return where `write` puts one position of each of the first D lanes: keys head by head, then values."""
        D = position_D.shape[0]
        if D not in self._first_D2G:
            _, _, W, G, C, _ = self._kept_L2WGCK.shape
            head_2G = torch.arange(2 * G, device=position_D.device)
            lane_D1 = torch.arange(D, device=position_D.device).unsqueeze(-1)
            row_D2G = lane_D1 * G + head_2G + (head_2G >= G) * (W * G - G)  # values lie behind the keys of all lanes
            self._first_D2G = {D: row_D2G * C}
        return (self._first_D2G[D] + position_D.unsqueeze(-1)).flatten()

    def write(self, layer: int, place_A: Tensor, kv_DNK: Tensor) -> tuple[Tensor, Tensor]:
        """Store one position of each of the first D lanes.

        Args:
            layer: which.
            place_A: as `places` returned.
            kv_DNK: the heads of the keys, then those of the values, N = 2 G.

        Returns:
            k_DGSK and v_DGSK, uncopied.
        """
        D, _, K = kv_DNK.shape
        self._kept_L2WGCK[layer].view(-1, K).index_copy_(0, place_A, kv_DNK.reshape(-1, K).to(self.dtype))
        return self.lanes(layer, D)

    def lanes(self, layer: int, num_lanes: int) -> tuple[Tensor, Tensor]:
        """Return k_DGSK and v_DGSK of the first lanes, uncopied."""
        k_DGSK, v_DGSK = self._kept_L2WGCK[layer, :, :num_lanes, :, : self._num_positions]
        return k_DGSK, v_DGSK

    def clear(self) -> None:
        """Give the room back."""
        self._resize(0, 0, self._dtype)

    def _resize(self, num_lanes: int, num_positions: int, dtype: torch.dtype) -> None:
        self._first_D2G = {}
        kept = self._kept_L2WGCK
        L, two, W, G, C, K = kept.shape
        lanes, positions = min(W, num_lanes), min(C, num_positions)
        self._kept_L2WGCK = kept.new_zeros((L, two, num_lanes, G, num_positions, K), dtype=dtype)
        self._kept_L2WGCK[:, :, :lanes, :, :positions] = kept[:, :, :lanes, :, :positions]
