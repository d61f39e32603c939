"""Intervals and paired comparisons, the only ones that evaluation uses.

Every figure that the project reports is an `Estimate`: a mean with the ends of its 95 % interval and the number of
independent units behind it. Answers to one prompt are not independent, so that units are prompts (or documents), and
intervals come from resampling whole units (the clustered bootstrap); rates of plain yes and no use Wilson's interval,
which stays honest at 0 and 100 %, where a bootstrap shrinks to a point.

Legend of shapes: `N` values, `U` units (clusters), `R` bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sanbai.foundation.errors import DataError
from sanbai.foundation.seeds import numpy_generator

CONFIDENCE = 0.95
DRAWS = 4_000
# Resampled indices held at once; 4 million of them are 32 MB.
_INDEX_BUDGET = 4_000_000

Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        mean: the figure itself.
        low: lower end of the 95 % interval.
        high: upper end.
        n: independent units behind it: prompts, documents or pairs.
    """

    mean: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """`{"mean", "low", "high", "n"}`, as it stands in `evaluation.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, float | int]) -> Estimate:
        """The inverse of `to_json`; further keys are left aside."""
        return cls(mean=float(row["mean"]), low=float(row["low"]), high=float(row["high"]), n=int(row["n"]))


def wilson(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """A rate with Wilson's score interval.

    centre = (p + z²/2n) / (1 + z²/n),  half-width = z/(1 + z²/n) · sqrt(p(1 - p)/n + z²/4n²)
    (Wilson 1927, "Probable inference, the law of succession, and statistical inference".)
    """
    if trials <= 0:
        raise DataError("no trials to estimate a rate from; at least one is needed")
    assert 0 <= successes <= trials
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / trials
    shrink = 1 + z * z / trials
    centre = (p + z * z / (2 * trials)) / shrink
    half = z / shrink * sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    # At 0 and at `trials` successes the exact end is 0 or 1; rounding would leave it a hair outside.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Estimate(mean=p, low=low, high=high, n=trials)


def bootstrap_ratio(
    numerators: Values, denominators: Values, *, seed: int, draws: int = DRAWS, confidence: float = CONFIDENCE
) -> Estimate:
    """Sum over sum, with the percentile interval of a bootstrap over units.

    sum_u numerator_u / sum_u denominator_u; each draw takes U units with replacement and divides anew
    (Efron 1979). Bits per byte (bits over bytes by document) and clustered means (sums over counts by prompt) are both
    of this form.

    Args:
        numerators: one number a unit, shape U.
        denominators: one number a unit, not negative, shape U; a draw must not sum to 0.
        seed: fixes the draws.
        draws: resamples, R.
        confidence: share of the draws inside the interval.
    """
    top_U = np.asarray(numerators, dtype=np.float64)
    bottom_U = np.asarray(denominators, dtype=np.float64)
    num_units = len(top_U)
    if num_units == 0:
        raise DataError("no values to estimate from; at least one is needed")
    assert bottom_U.shape == top_U.shape
    generator = numpy_generator(seed, "bootstrap")
    ratios = np.empty(draws)
    chunk = max(1, _INDEX_BUDGET // num_units)
    for start in range(0, draws, chunk):
        stop = min(start + chunk, draws)
        index_RU = generator.integers(0, num_units, size=(stop - start, num_units))
        ratios[start:stop] = top_U[index_RU].sum(axis=1) / bottom_U[index_RU].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(mean=float(top_U.sum() / bottom_U.sum()), low=float(low), high=float(high), n=num_units)


def bootstrap_mean(
    values: Values,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int,
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The mean of all values, with an interval from resampling whole clusters.

    Args:
        values: shape N.
        clusters: the cluster of each value, usually its prompt's id; none given, each value stands alone.
        seed: fixes the draws.
        draws: resamples.
        confidence: share of the draws inside the interval.
    """
    value_N = np.asarray(values, dtype=np.float64)
    sum_U, count_U = _sums_by_cluster(value_N, clusters)
    return bootstrap_ratio(sum_U, count_U, seed=seed, draws=draws, confidence=confidence)


def rate_or_mean(
    values: Values, clusters: Sequence[Hashable] | None = None, *, seed: int, draws: int = DRAWS
) -> Estimate:
    """Wilson's interval where every value is 0 or 1 and no cluster has two, the clustered bootstrap otherwise."""
    value_N = np.asarray(values, dtype=np.float64)
    alone = clusters is None or len(set(clusters)) == len(value_N)
    if alone and bool(np.isin(value_N, (0.0, 1.0)).all()):
        return wilson(int(value_N.sum()), len(value_N))
    return bootstrap_mean(value_N, clusters, seed=seed, draws=draws)


def paired_win_rate(
    ours: Values, theirs: Values, clusters: Sequence[Hashable] | None = None, *, seed: int, draws: int = DRAWS
) -> Estimate:
    """How often ours is the greater of the pair, ties counting one half; bootstrap by cluster.

    mean_i[ 1(ours_i > theirs_i) + ½ 1(ours_i = theirs_i) ]
    """
    ours_N, theirs_N = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert ours_N.shape == theirs_N.shape
    return bootstrap_mean((ours_N > theirs_N) + 0.5 * (ours_N == theirs_N), clusters, seed=seed, draws=draws)


def paired_difference(
    ours: Values, theirs: Values, clusters: Sequence[Hashable] | None = None, *, seed: int, draws: int = DRAWS
) -> Estimate:
    """Mean of ours minus theirs, item by item; bootstrap by cluster."""
    ours_N, theirs_N = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert ours_N.shape == theirs_N.shape
    return bootstrap_mean(ours_N - theirs_N, clusters, seed=seed, draws=draws)


def bootstrap_auroc(
    scores: Values,
    is_positive: Sequence[bool] | NDArray[np.bool_],
    clusters: Sequence[Hashable],
    *,
    seed: int,
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The chance that a positive has a higher score than a negative, ties one half; bootstrap by cluster.

    The area under the ROC curve, Mann and Whitney's U over the number of couples. Draws that hold no couple are left
    out.

    Args:
        scores: shape N.
        is_positive: whom the scores should find, shape N; at least one and not all.
        clusters: the cluster of each score.
        seed: fixes the draws.
        draws: resamples.
        confidence: share of the draws inside the interval.
    """
    score_N, positive_N = np.asarray(scores, dtype=np.float64), np.asarray(is_positive, dtype=np.float64)
    assert 0 < positive_N.sum() < len(positive_N)
    order_N = np.argsort(score_N, kind="stable")
    tie_starts = np.flatnonzero(np.diff(score_N[order_N], prepend=-np.inf))
    cluster_N = _cluster_numbers(clusters)[order_N]
    positive_N = positive_N[order_N]

    def area(weight_N: NDArray[np.float64]) -> float:
        positives = np.add.reduceat(weight_N * positive_N, tie_starts)
        negatives = np.add.reduceat(weight_N * (1 - positive_N), tie_starts)
        couples = positives.sum() * negatives.sum()
        below = negatives.cumsum() - negatives / 2
        return float((positives * below).sum() / couples) if couples else float("nan")

    num_clusters = int(cluster_N.max()) + 1
    generator = numpy_generator(seed, "bootstrap")
    areas = np.empty(draws)
    for draw in range(draws):
        drawn = generator.integers(0, num_clusters, size=num_clusters)
        areas[draw] = area(np.bincount(drawn, minlength=num_clusters).astype(np.float64)[cluster_N])
    low, high = np.nanquantile(areas, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(mean=area(np.ones_like(score_N)), low=float(low), high=float(high), n=num_clusters)


def sign_test(ours: Values, theirs: Values) -> float:
    """Two-sided exact p-value that ours and theirs are equally often the greater; ties are left out.

    With yes and no for values this is McNemar's exact test.
    """
    difference_N = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    wins, losses = int((difference_N > 0).sum()), int((difference_N < 0).sum())
    unequal = wins + losses
    tail = sum(comb(unequal, k) for k in range(min(wins, losses) + 1))
    # Whole numbers to the end: 2**unequal overflows a float beyond a thousand pairs.
    return min(1.0, float((2 * tail * 10**18 >> unequal) / 10**18))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values, which keep the chance of any false alarm among all of them below the level.

    In rising order, adjusted_k = max over j <= k of min(1, (m - j) p_j), j counted from 0 (Holm 1979).
    """
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_value))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def _sums_by_cluster(
    value_N: NDArray[np.float64], clusters: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and count of the values of each cluster, in order of first appearance."""
    if clusters is None:
        return value_N, np.ones_like(value_N)
    assert len(clusters) == len(value_N)
    cluster_N = _cluster_numbers(clusters)
    size = int(cluster_N.max(initial=-1)) + 1
    return (
        np.bincount(cluster_N, weights=value_N, minlength=size).astype(np.float64),
        np.bincount(cluster_N, minlength=size).astype(np.float64),
    )


def _cluster_numbers(clusters: Sequence[Hashable]) -> NDArray[np.int64]:
    """Return each value's cluster as a number, in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.int64)
