"""Several reward models on the same pairs, by scikit-learn and by loops."""

from __future__ import annotations

from statistics import fmean, pstdev

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sanbai.evaluation.disagreement import disagreement


def test_spread_and_both_curves_are_those_of_a_loop_and_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    truth_N = rng.normal(size=300)
    margin_MN = np.stack([scale * (truth_N + 0.8 + rng.normal(size=300)) for scale in (1.0, 5.0, 0.2)])
    found = disagreement(margin_MN, [n % 60 for n in range(300)], seed=0, draws=300)
    scaled = [[m / fmean(x * x for x in row) ** 0.5 for m in row] for row in margin_MN.tolist()]
    means = [fmean(column) for column in zip(*scaled, strict=True)]
    spreads = [pstdev(column) for column in zip(*scaled, strict=True)]
    wrong = [mean < 0 for mean in means]
    assert found.num_models == 3
    assert found.spread == pytest.approx(fmean(spreads))
    assert found.accuracy.mean == pytest.approx(1 - fmean(wrong))
    for estimate, scores in (
        (found.error_by_spread, spreads),
        (found.error_by_margin, [-abs(mean) for mean in means]),
    ):
        assert estimate
        assert estimate.mean == pytest.approx(roc_auc_score(wrong, scores))
        assert estimate.low < estimate.mean < estimate.high
        assert estimate.n == 60
    order = sorted(range(300), key=spreads.__getitem__)
    thirds = [fmean(not wrong[n] for n in order[start : start + 100]) for start in (0, 100, 200)]
    assert [estimate.mean for estimate in found.accuracy_by_spread] == pytest.approx(thirds)


def test_a_spread_that_marks_the_errors_finds_them_all_and_one_that_is_chance_finds_none() -> None:
    rng = np.random.default_rng(0)
    sure, unsure = np.full((2, 100), 1.0), np.array([[3.0] * 50, [-4.0] * 50])
    found = disagreement(np.concatenate([sure, unsure], axis=1), list(range(150)), seed=0, draws=50)
    assert found.error_by_spread
    assert found.error_by_spread.mean == 1.0
    by_chance = disagreement(rng.normal(size=(2, 4000)), list(range(4000)), seed=0, draws=50)
    assert by_chance.error_by_spread
    assert by_chance.error_by_spread.mean == pytest.approx(0.5, abs=0.03)


def test_models_that_are_never_wrong_leave_nothing_to_predict() -> None:
    found = disagreement(np.ones((2, 6)), list("aabbcc"), seed=0, draws=10)
    assert found.error_by_spread is None
    assert "error_by_spread" not in found.to_json()
    assert found.spread == 0.0
