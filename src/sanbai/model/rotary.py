"""Rotary positions (Su et al. 2021, arXiv:2104.09864) in Llama's layout: number i is turned with number i + K/2.

Shapes: B rows, T positions, H heads (queries and keys alike), K head width, W = K/2 wavelengths.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sanbai.model.config import RopeScaling


class Rotation(NamedTuple):
    """The turn of each position, computed once for all layers."""

    cos: Tensor
    """[B, T, 1, K]."""
    sin: Tensor
    """[B, T, 1, K], its first K/2 entries negated, as the formula needs them."""


def rotation(
    positions_BT: Tensor, *, head_width: int, theta: float, dtype: torch.dtype, scaling: RopeScaling | None = None
) -> Rotation:
    """Return cos and sin of position * theta^(-2i/K), in float32 until the cast: bfloat16 cannot hold a position.

    Args:
        positions_BT: of each token.
        head_width: K.
        theta: base of the wavelengths.
        dtype: of the result.
        scaling: how wavelengths are stretched; by default not at all.
    """
    exact = torch.promote_types(dtype, torch.float32)
    exponent = torch.arange(0, head_width, 2, device=positions_BT.device, dtype=torch.int64).to(exact) / head_width
    frequency_W = 1.0 / theta**exponent
    growth = 1.0
    if scaling is not None and scaling.kind != "none":
        frequency_W = frequency_W.lerp(frequency_W / scaling.factor, stretched_share(frequency_W, theta, scaling))
        growth = 0.1 * math.log(scaling.factor) + 1.0 if scaling.kind == "yarn" else 1.0
    angle_BT1W = positions_BT.to(exact)[:, :, None, None] * frequency_W
    cos, sin = angle_BT1W.cos() * growth, angle_BT1W.sin() * growth
    return Rotation(torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype))


def stretched_share(frequency_W: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    """Return how far each wavelength goes from as it was (0) to `scaling.factor` times longer (1).

    Llama 3 goes by turns over the old context, evenly between `slow_turns` and `fast_turns`; YaRN by the wavelength's
    number in the list, evenly between the whole numbers around those two.
    """
    if scaling.kind == "linear":
        return torch.ones_like(frequency_W)
    if scaling.kind == "llama3":
        turns_W = scaling.original_positions * frequency_W / (2 * math.pi)
        return ((scaling.fast_turns - turns_W) / (scaling.fast_turns - scaling.slow_turns)).clamp(0.0, 1.0)

    def number(turns: float) -> float:
        return len(frequency_W) * math.log(scaling.original_positions / (2 * math.pi * turns)) / math.log(theta)

    low = max(math.floor(number(scaling.fast_turns)), 0)
    high = min(math.ceil(number(scaling.slow_turns)), 2 * len(frequency_W) - 1)
    number_W = torch.arange(len(frequency_W), dtype=frequency_W.dtype, device=frequency_W.device)
    return ((number_W - low) / max(high - low, 0.001)).clamp(0.0, 1.0)


def rotate(x_BTHK: Tensor, turn: Rotation) -> Tensor:
    """Turn every pair: (a, b) -> (a cos - b sin, b cos + a sin)."""
    swapped_BTHK = x_BTHK.roll(x_BTHK.shape[-1] // 2, dims=-1)
    return torch.addcmul(x_BTHK * turn.cos, swapped_BTHK, turn.sin)
