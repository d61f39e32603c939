"""Pairs of a prompt's answers: their margins, and means in which every prompt weighs alike.

Shapes: B prompts, K answers a prompt (padded to the largest K of the batch).
"""

from __future__ import annotations

from torch import Tensor


def pair_margins(value_BK: Tensor) -> Tensor:
    """Return margin_BKK = value_bi - value_bj: how far answer i stands above answer j."""
    return value_BK.unsqueeze(2) - value_BK.unsqueeze(1)


def mean_over_pairs(value_BKK: Tensor, preference_BKK: Tensor, *, denominator: float) -> Tensor:
    """Mean over a prompt's strict preferences, then over prompts: Σ_b [ 1/n_b Σ_ij c_bij v_bij ] / denominator.

    A prompt of nine answers weighs as much as one of four; one without a preference adds nothing.

    Args:
        value_BKK: v_bij, a number for each pair; finite also where c is 0.
        preference_BKK: c_bij, how many labelers placed answer i strictly above answer j; n_b = Σ_ij c_bij.
        denominator: prompts with a pair in the whole batch, of which these may be a part.
    """
    num_pairs_B = preference_BKK.sum((1, 2))
    return ((preference_BKK * value_BKK).sum((1, 2)) / num_pairs_B.clamp_min(1)).sum() / denominator
