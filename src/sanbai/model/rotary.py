"""Rotary positions (Su et al. 2021, arXiv:2104.09864) in Llama's layout: number i is turned with number i + K/2.

Shapes: B rows, T positions, H heads (queries and keys alike), K head width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """The turn of each position, computed once for all layers."""

    cos: Tensor
    """[B, T, 1, K]."""
    sin: Tensor
    """[B, T, 1, K], its first K/2 entries negated, as the formula needs them."""


def rotation(positions_BT: Tensor, *, head_width: int, theta: float, dtype: torch.dtype) -> Rotation:
    """Return cos and sin of position * theta^(-2i/K), in float32 until the cast: bfloat16 cannot hold a position."""
    exact = torch.promote_types(dtype, torch.float32)
    exponent = torch.arange(0, head_width, 2, device=positions_BT.device, dtype=torch.int64).to(exact) / head_width
    angle_BT1K = positions_BT.to(exact)[:, :, None, None] * (1.0 / theta**exponent)
    cos, sin = angle_BT1K.cos(), angle_BT1K.sin()
    return Rotation(torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype))


def rotate(x_BTHK: Tensor, turn: Rotation) -> Tensor:
    """Turn every pair: (a, b) -> (a cos - b sin, b cos + a sin)."""
    swapped_BTHK = x_BTHK.roll(x_BTHK.shape[-1] // 2, dims=-1)
    return torch.addcmul(x_BTHK * turn.cos, swapped_BTHK, turn.sin)
