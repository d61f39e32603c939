"""A win rate with the liking for length taken out.

Judges like longer answers, and a model that only writes more wins against itself. So wins are regressed on the
difference in length, and the rate is read off where both answers are equally long (Dubois et al. 2024,
arXiv:2404.04475, without their term for the prompts' difficulty, which wants many models on the same prompts).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sanbai.foundation.errors import DataError

#: Strength of the pull towards no effect of length, in units of one pair: keeps separable data finite.
RIDGE = 1.0
NUM_STEPS = 50


def length_controlled_win_rate(outcomes: Sequence[float], length_differences: Sequence[float]) -> float:
    """Return how often ours would win if both answers were equally long.

    P(win_i) = σ(a + b · tanh(Δ_i / s)),  s the standard deviation of Δ; fitted by maximum likelihood with a ridge of
    `RIDGE` / 2 · b², by Newton's method; the rate is σ(a).

    Args:
        outcomes: 1 where ours won, 0 where theirs did, ½ for a tie.
        length_differences: Δ, ours minus theirs, in words or tokens.

    Returns:
        In (0, 1); the plain win rate where all lengths are equal, up to a ridge of 1e-6 on a.

    Raises:
        DataError: there is no pair.
    """
    if not len(outcomes):
        raise DataError("no pairs to take a win rate of; compare at least one")
    win_N = np.asarray(outcomes, dtype=np.float64)
    difference_N = np.asarray(length_differences, dtype=np.float64)
    spread = difference_N.std() or 1.0
    design_N2 = np.stack([np.ones_like(difference_N), np.tanh(difference_N / spread)], axis=1)
    ridge_2 = np.array([1e-6, RIDGE])
    weight_2 = np.zeros(2)
    for _ in range(NUM_STEPS):
        rate_N = 1 / (1 + np.exp(-design_N2 @ weight_2))
        slope_2 = design_N2.T @ (win_N - rate_N) - ridge_2 * weight_2
        curvature_22 = (design_N2 * (rate_N * (1 - rate_N))[:, None]).T @ design_N2 + np.diag(ridge_2)
        step_2 = np.linalg.solve(curvature_22, slope_2)
        weight_2 += np.clip(step_2, -2.0, 2.0)  # a full step may overshoot where nearly all are won
        if np.abs(step_2).max() < 1e-10:
            break
    return float(1 / (1 + np.exp(-weight_2[0])))
