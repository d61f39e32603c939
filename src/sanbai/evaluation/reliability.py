"""Whether a reward model's stated probability is the observed share: of pairs said with 80 %, are 80 in 100 right?

A reward model says P(chosen over rejected) = σ(margin). Which answer stands first is nobody's choice, so a pair counts
by the confidence of the answer that the model prefers, max(p, 1 - p) in [½, 1].
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanbai.evaluation.statistics import DRAWS, Estimate, bootstrap_mean

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Pairs of like confidence.

    Attributes:
        stated: their mean confidence.
        observed: the share that is right, by prompt.
        num_pairs: how many there are.
    """

    stated: float
    observed: Estimate
    num_pairs: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        return {"stated": self.stated, "observed": self.observed.to_json(), "num_pairs": self.num_pairs}


def reliability(
    margin_N: NDArray[np.float64],
    prompts: Sequence[Hashable],
    *,
    seed: int,
    num_bins: int = NUM_BINS,
    draws: int = DRAWS,
) -> list[ReliabilityBin]:
    """Return the reliability curve in bins of equal width over [½, 1]; empty bins are left out.

    Args:
        margin_N: reward of the chosen less reward of the rejected answer.
        prompts: of each pair, the unit of the intervals.
        seed: of the bootstrap.
        num_bins: bins.
        draws: resamples.
    """
    confidence_N = 1 / (1 + np.exp(-np.abs(margin_N)))
    bin_N = np.minimum(((confidence_N - 0.5) * 2 * num_bins).astype(np.int64), num_bins - 1)
    right_N = is_right(margin_N)
    bins = []
    for number in range(num_bins):
        inside = np.flatnonzero(bin_N == number)
        if len(inside):
            observed = bootstrap_mean(right_N[inside], [prompts[i] for i in inside.tolist()], seed=seed, draws=draws)
            bins.append(ReliabilityBin(float(confidence_N[inside].mean()), observed, len(inside)))
    return bins


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return how far the stated probability is from the observed share, on average over pairs; 0 at best.

    Σ_b n_b / N · | mean confidence - share right |  (Naeini et al. 2015; Guo et al. 2017).
    """
    num_pairs = sum(each.num_pairs for each in bins)
    return sum(each.num_pairs * abs(each.stated - each.observed.mean) for each in bins) / num_pairs


def is_right(margin_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 where the margin is positive, ½ where it is nothing."""
    return np.where(margin_N == 0, 0.5, (margin_N > 0).astype(np.float64))
