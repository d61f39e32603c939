"""Intervals against scipy and against slow loops in plain Python."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sanbai.evaluation.statistics import (
    Estimate,
    bootstrap_mean,
    bootstrap_ratio,
    holm,
    paired_difference,
    paired_win_rate,
    rate_or_mean,
    sign_test,
    wilson,
)
from sanbai.foundation.errors import DataError


@given(trials=st.integers(1, 2_000), share=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_wilson_equals_scipy(trials: int, share: float) -> None:
    successes = round(trials * share)
    ours = wilson(successes, trials)
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    assert ours.mean == pytest.approx(successes / trials)
    assert ours.low == pytest.approx(theirs.low, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, abs=1e-12)
    assert ours.n == trials


def test_a_perfect_score_keeps_a_lower_end_below_one() -> None:
    assert wilson(50, 50).high == 1.0
    assert 0.9 < wilson(50, 50).low < 1.0
    assert wilson(0, 50).low == 0.0


def test_bootstrap_of_a_mean_agrees_with_scipy_percentile_bootstrap() -> None:
    values = np.random.default_rng(5).gamma(2.0, size=300)
    ours = bootstrap_mean(values, seed=1, draws=10_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=7).confidence_interval
    spread = theirs.high - theirs.low
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * spread)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * spread)


def test_clustered_bootstrap_agrees_with_a_slow_loop_over_clusters() -> None:
    rng = random.Random(3)
    by_cluster = {
        name: [rng.gauss(centre, 0.1) for _ in range(rng.randint(1, 6))]
        for name, centre in ((f"prompt-{i}", rng.gauss(0, 1)) for i in range(40))
    }
    values = [value for cluster in by_cluster.values() for value in cluster]
    clusters = [name for name, cluster in by_cluster.items() for _ in cluster]
    draws = []
    for _ in range(4_000):
        taken = [value for name in rng.choices(list(by_cluster), k=len(by_cluster)) for value in by_cluster[name]]
        draws.append(sum(taken) / len(taken))
    draws.sort()
    ours = bootstrap_mean(values, clusters, seed=2, draws=10_000)
    spread = draws[3_899] - draws[100]
    assert ours.n == 40
    assert ours.mean == pytest.approx(sum(values) / len(values))
    assert ours.low == pytest.approx(draws[100], abs=0.06 * spread)
    assert ours.high == pytest.approx(draws[3_899], abs=0.06 * spread)


def test_copies_of_a_prompt_do_not_narrow_its_clustered_interval() -> None:
    values = np.random.default_rng(0).normal(size=80)
    alone = bootstrap_mean(values, seed=4)
    copied = bootstrap_mean(np.repeat(values, 10), np.repeat(np.arange(80), 10).tolist(), seed=4)
    naive = bootstrap_mean(np.repeat(values, 10), seed=4)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert naive.high - naive.low < 0.5 * (alone.high - alone.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for trial in range(300):
        estimate = bootstrap_mean(rng.exponential(size=120), seed=trial, draws=600)
        covered += estimate.low <= 1.0 <= estimate.high
    # 95 % nominal; the percentile bootstrap of a skewed mean falls a little short: 3 standard errors are 3.8 points.
    assert 0.89 <= covered / 300 <= 0.985


def test_ratio_is_sum_over_sum_not_mean_of_ratios() -> None:
    estimate = bootstrap_ratio([1.0, 30.0], [1.0, 10.0], seed=0)
    assert estimate.mean == pytest.approx(31 / 11)
    assert estimate.low == pytest.approx(1.0)
    assert estimate.high == pytest.approx(3.0)


def test_same_seed_same_interval_and_chunks_stay_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=50)
    assert bootstrap_mean(values, seed=9) == bootstrap_mean(values, seed=9)
    assert bootstrap_mean(values, seed=9) != bootstrap_mean(values, seed=10)
    whole = bootstrap_mean(values, seed=9, draws=1_000)
    monkeypatch.setattr("sanbai.evaluation.statistics._INDEX_BUDGET", 1_234)
    chunked = bootstrap_mean(values, seed=9, draws=1_000)
    assert chunked.low == pytest.approx(whole.low, abs=0.05)


def test_win_rate_counts_ties_as_half() -> None:
    estimate = paired_win_rate([3, 1, 2, 5], [1, 3, 2, 4], seed=0)
    assert estimate.mean == (1 + 0 + 0.5 + 1) / 4
    assert estimate.n == 4


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_win_rates_of_the_two_sides_sum_to_one(pairs: list[tuple[int, int]]) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = paired_win_rate(ours, theirs, seed=1, draws=200), paired_win_rate(theirs, ours, seed=1, draws=200)
    assert there.mean + back.mean == pytest.approx(1.0)
    assert there.low + back.high == pytest.approx(1.0)


def test_pairing_narrows_a_difference() -> None:
    rng = np.random.default_rng(2)
    theirs = rng.normal(size=200)
    ours = theirs + 0.1 + 0.05 * rng.normal(size=200)
    paired = paired_difference(ours, theirs, seed=3)
    assert paired.mean == pytest.approx((ours - theirs).mean())
    assert paired.low > 0
    assert paired.high - paired.low < 0.1 * (bootstrap_mean(ours, seed=3).high - bootstrap_mean(ours, seed=3).low)


def test_rates_use_wilson_and_graded_values_the_bootstrap() -> None:
    assert rate_or_mean([1, 1, 1], ["a", "b", "c"], seed=0) == wilson(3, 3)
    assert rate_or_mean([1, 1, 0.5], ["a", "b", "c"], seed=0) == bootstrap_mean([1, 1, 0.5], seed=0)
    assert rate_or_mean([1, 1, 0], ["a", "a", "c"], seed=0) == bootstrap_mean([1, 1, 0], ["a", "a", "c"], seed=0)


@given(st.integers(0, 600), st.integers(0, 600), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_sign_test_equals_scipy_binomial_test(wins: int, losses: int, ties: int) -> None:
    ours = [1.0] * wins + [0.0] * losses + [0.5] * ties
    theirs = [0.0] * wins + [1.0] * losses + [0.5] * ties
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(ours, theirs) == pytest.approx(expected, abs=1e-12)


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({}) == {}


def test_nothing_to_estimate_is_an_error_in_words() -> None:
    with pytest.raises(DataError, match="at least one"):
        bootstrap_mean([], seed=0)
    with pytest.raises(DataError, match="at least one"):
        wilson(0, 0)


def test_an_estimate_survives_json() -> None:
    estimate = Estimate(mean=0.5, low=0.4, high=0.6, n=10)
    assert estimate.to_json() == {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    assert Estimate.from_json(estimate.to_json()) == estimate
    assert math.isclose(estimate.mean, 0.5)
