"""Labels needed, by hand and by scikit-learn's isotonic regression."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from sanbai.lab.cheaper_labels import labels_needed, rising_fit


def test_the_rising_fit_is_isotonic_regression() -> None:
    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=9) + np.arange(9) / 5
        expected = IsotonicRegression().fit_transform(np.arange(9), values)
        assert rising_fit(values.tolist()) == pytest.approx(expected.tolist())


def test_labels_needed_by_hand() -> None:
    budgets = [10, 20, 40]
    assert labels_needed(budgets, [0.5, 0.6, 0.7], 0.65) == pytest.approx(30.0)
    assert labels_needed(budgets, [0.5, 0.6, 0.7], 0.9) == 40.0
    assert labels_needed(budgets, [0.8, 0.7, 0.9], 0.6) == 10.0
    assert labels_needed(budgets, [0.5, 0.7, 0.6], 0.64) == pytest.approx(10 + 10 * 14 / 15)  # 0.5, 0.65, 0.65
