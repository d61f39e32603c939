"""Sinusoidal positions (Vaswani et al. 2017, arXiv:1706.03762, section 3.5): a fixed vector for each position.

Shapes: B rows, T positions, D width, W = D/2 wavelengths.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sinusoids(positions_BT: Tensor, *, width: int, dtype: torch.dtype) -> Tensor:
    """Return vectors_BTD: number 2i is sin(position / 10000^(2i/D)), number 2i + 1 its cosine; D is even."""
    exact = torch.promote_types(dtype, torch.float32)
    exponent_W = torch.arange(0, width, 2, device=positions_BT.device, dtype=torch.int64).to(exact) / width
    angle_BTW = positions_BT.to(exact).unsqueeze(-1) / 10_000.0**exponent_W
    return torch.stack((angle_BTW.sin(), angle_BTW.cos()), dim=-1).flatten(-2).to(dtype)
