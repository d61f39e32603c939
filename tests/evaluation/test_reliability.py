"""Stated probabilities against observed shares, by scikit-learn and by a slow loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from sanbai.evaluation.reliability import expected_calibration_error, reliability


def error_of(margin_N: np.ndarray) -> float:
    return expected_calibration_error(reliability(margin_N, list(range(len(margin_N))), seed=0, draws=2))


def test_the_curve_is_scikit_learn_s_on_both_orders_of_every_pair() -> None:
    margin_N = np.random.default_rng(3).normal(size=400) * 1.5
    bins = reliability(margin_N, [str(n % 50) for n in range(400)], seed=0, draws=200)
    # Each pair once with the chosen answer first and once with it second: the upper half of the curve is ours.
    probability = 1 / (1 + np.exp(-np.concatenate([margin_N, -margin_N])))
    outcome = np.repeat([1, 0], 400)
    observed, stated = calibration_curve(outcome, probability, n_bins=20, strategy="uniform")
    np.testing.assert_allclose([each.stated for each in bins], stated[stated > 0.5], rtol=1e-12)
    np.testing.assert_allclose([each.observed.mean for each in bins], observed[stated > 0.5], rtol=1e-12)
    assert sum(each.num_pairs for each in bins) == 400
    assert all(each.observed.low <= each.observed.mean <= each.observed.high for each in bins)


def test_calibration_error_equals_a_slow_loop_and_vanishes_for_a_calibrated_model() -> None:
    rng = np.random.default_rng(0)
    margin_N = rng.normal(size=500) * 2
    bins: list[list[tuple[float, float]]] = [[] for _ in range(10)]
    for margin in margin_N.tolist():
        p = 1 / (1 + math.exp(-margin))
        confidence = max(p, 1 - p)
        bins[min(9, math.floor((confidence - 0.5) / 0.05))].append((confidence, float(margin > 0)))
    expected = sum(len(b) / 500 * abs(sum(c for c, _ in b) / len(b) - sum(r for _, r in b) / len(b)) for b in bins if b)
    assert error_of(margin_N) == pytest.approx(expected)

    strength = rng.normal(size=50_000) * 2
    chosen_first = rng.random(50_000) < 1 / (1 + np.exp(-strength))
    assert error_of(np.where(chosen_first, strength, -strength)) < 0.015
    assert error_of(np.where(chosen_first, strength, -strength) * 4) > 0.1


def test_a_model_that_cannot_tell_is_right_half_of_the_time() -> None:
    (only,) = reliability(np.zeros(3), ["p", "q", "r"], seed=0, draws=10)
    assert (only.stated, only.observed.mean, only.num_pairs) == (0.5, 0.5, 3)
