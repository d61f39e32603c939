"""The length-controlled win rate against scipy's optimiser, and on data whose true rate is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from sanbai.evaluation.length_control import RIDGE, length_controlled_win_rate
from sanbai.foundation.errors import DataError


def test_the_rate_is_the_penalised_likelihoods_maximum() -> None:
    generator = np.random.default_rng(0)
    longer = generator.normal(3, 10, 300)
    won = (generator.random(300) < 1 / (1 + np.exp(-(0.4 + np.tanh(longer / 10))))).astype(float)
    won[::7] = 0.5
    feature = np.tanh(longer / longer.std())

    def loss(weights: np.ndarray) -> float:
        score = weights[0] + weights[1] * feature
        nats = np.logaddexp(0, -score) * won + np.logaddexp(0, score) * (1 - won)
        return float(nats.sum() + 0.5e-6 * weights[0] ** 2 + RIDGE / 2 * weights[1] ** 2)

    best = minimize(loss, np.zeros(2), tol=1e-12).x
    assert length_controlled_win_rate(won, longer) == pytest.approx(1 / (1 + np.exp(-best[0])), abs=1e-5)


def test_a_win_rate_that_is_only_length_becomes_a_half() -> None:
    generator = np.random.default_rng(1)
    longer = generator.normal(6, 6, 20_000)
    rate = 1 / (1 + np.exp(-2 * np.tanh(longer / longer.std())))
    won = (generator.random(20_000) < rate).astype(float)
    assert won.mean() > 0.7
    assert length_controlled_win_rate(won, longer) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("outcomes", [[1.0, 0.0, 1.0, 0.5], [1.0, 1.0, 0.0, 0.0]])
def test_equal_lengths_leave_the_plain_rate(outcomes: list[float]) -> None:
    assert length_controlled_win_rate(outcomes, [2.0] * 4) == pytest.approx(np.mean(outcomes), abs=1e-6)


def test_a_win_everywhere_is_a_number_below_one() -> None:
    assert 0.9 < length_controlled_win_rate([1.0] * 50, list(range(50))) < 1.0


def test_no_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="no pairs"):
        length_controlled_win_rate([], [])
