"""A reward model's accuracy by how much longer one answer is: a judge of length alone shows here, and only here.

Over all pairs, length may look harmless. Where the answers differ most, a model that has learned "longer is better" is
right on nearly every pair whose longer answer was chosen and wrong on the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanbai.evaluation.reliability import is_right
from sanbai.evaluation.statistics import DRAWS, Estimate, bootstrap_mean

NUM_BINS = 5


@dataclass(frozen=True, slots=True)
class LengthGapBin:
    """Pairs whose answers differ in length by a like number of characters.

    Attributes:
        least: the smallest difference among them, without its sign.
        most: the largest.
        accuracy: of the reward model.
        longer_wins: what preferring the longer answer scores on the same pairs.
        longer_chosen: the reward model's accuracy where people chose the longer answer; None where they never did.
        shorter_chosen: the same where they chose the shorter.
        num_pairs: how many there are.
    """

    least: int
    most: int
    accuracy: Estimate
    longer_wins: Estimate
    longer_chosen: Estimate | None
    shorter_chosen: Estimate | None
    num_pairs: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`; what is None is left out."""
        shares = {
            "accuracy": self.accuracy,
            "longer_wins": self.longer_wins,
            "longer_chosen": self.longer_chosen,
            "shorter_chosen": self.shorter_chosen,
        }
        return {
            "least": self.least,
            "most": self.most,
            **{name: estimate.to_json() for name, estimate in shares.items() if estimate},
            "num_pairs": self.num_pairs,
        }


def accuracy_by_length_gap(
    margin_N: NDArray[np.float64],
    gap_N: NDArray[np.int64],
    prompts: Sequence[Hashable],
    *,
    seed: int,
    num_bins: int = NUM_BINS,
    draws: int = DRAWS,
) -> list[LengthGapBin]:
    """Return the bins, shortest differences first: pairs of equal length by themselves, the others in like numbers.

    Args:
        margin_N: reward of the chosen less reward of the rejected answer.
        gap_N: characters of the chosen less characters of the rejected answer.
        prompts: of each pair, the unit of the intervals.
        seed: of the bootstrap.
        num_bins: bins beside that of equal lengths; pairs of one difference stay together, so there may be fewer.
        draws: resamples.
    """
    size_N, right_N = np.abs(gap_N), is_right(margin_N)
    longer_N = is_right(gap_N.astype(np.float64))

    def mean(value_N: NDArray[np.float64], inside: NDArray[np.bool_]) -> Estimate | None:
        places = np.flatnonzero(inside)
        if not len(places):
            return None
        return bootstrap_mean(value_N[places], [prompts[i] for i in places.tolist()], seed=seed, draws=draws)

    bins = []
    for inside in _like_numbers(size_N, num_bins):
        accuracy, longer_wins = mean(right_N, inside), mean(longer_N, inside)
        assert accuracy is not None
        assert longer_wins is not None
        bins.append(
            LengthGapBin(
                least=int(size_N[inside].min()),
                most=int(size_N[inside].max()),
                accuracy=accuracy,
                longer_wins=longer_wins,
                longer_chosen=mean(right_N, inside & (gap_N > 0)),
                shorter_chosen=mean(right_N, inside & (gap_N < 0)),
                num_pairs=int(inside.sum()),
            )
        )
    return bins


def _like_numbers(size_N: NDArray[np.int64], num_bins: int) -> list[NDArray[np.bool_]]:
    """Return who is in which bin; no bin is empty."""
    bin_N = np.full(len(size_N), -1)
    unequal = size_N > 0
    if unequal.any():
        inner = np.quantile(size_N[unequal], np.arange(1, num_bins) / num_bins, method="inverted_cdf")
        bin_N[unequal] = np.searchsorted(np.unique(inner), size_N[unequal], side="left")
    return [bin_N == number for number in np.unique(bin_N)]
