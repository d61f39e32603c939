"""Statistics over the tokens that count: masks, never ids, say which, and what a mask hides may be anything, even NaN.

Shapes: B sequences, T positions; any other shape works where the arguments agree.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_sum(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum over the tokens where the mask is 1, in float32 or better.

    Hidden values are replaced, not multiplied by 0, since 0 · NaN is NaN.
    """
    counted_BT = torch.where(mask_BT.bool(), _at_least_float32(value_BT), 0.0)
    return counted_BT.sum()


def masked_mean(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the tokens where the mask is 1; at least one."""
    return masked_sum(value_BT, mask_BT) / mask_BT.sum()


def masked_variance(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Variance over the tokens where the mask is 1, denominator n (not n - 1)."""
    mean = masked_mean(value_BT, mask_BT)
    return masked_mean((_at_least_float32(value_BT) - mean).square(), mask_BT)


def whiten(value_BT: Tensor, mask_BT: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Shift and scale so that the tokens that count have mean 0 and variance 1; the others become 0.

    (x - mean) / sqrt(variance + ε); where all values are equal the result is 0, not infinite.

    Args:
        value_BT: advantages, say; no gradient expected.
        mask_BT: 1 on the tokens that count.
        epsilon: keeps the denominator from 0.
    """
    exact_BT = value_BT.double()  # in float32 the rounding of a constant's mean would be scaled up to a signal
    scale = torch.rsqrt(masked_variance(exact_BT, mask_BT) + epsilon)
    white_BT = (exact_BT - masked_mean(exact_BT, mask_BT)) * scale
    return torch.where(mask_BT.bool(), white_BT, 0.0).to(value_BT.dtype)


def _at_least_float32(value: Tensor) -> Tensor:
    """Sums of many bf16 numbers lose their small ones; float64 (gradient checks) stays."""
    return value if value.dtype == torch.float64 else value.float()
