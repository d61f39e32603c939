"""Accuracy by difference in length, by hand and by a loop."""

from __future__ import annotations

import numpy as np
import pytest

from sanbai.evaluation.length_gap import accuracy_by_length_gap


def test_a_table_by_hand() -> None:
    gap_N = np.array([0, 0, 3, -3, 3, 10, -12, 12])
    margin_N = np.array([1.0, -1.0, 2.0, 1.0, -1.0, 5.0, -5.0, 5.0])
    equal, near, far = accuracy_by_length_gap(margin_N, gap_N, list("aabbccdd"), seed=0, num_bins=2, draws=50)
    assert (equal.least, equal.most, equal.num_pairs, equal.accuracy.mean) == (0, 0, 2, 0.5)
    assert equal.longer_wins.mean == 0.5
    assert equal.longer_chosen is equal.shorter_chosen is None
    assert (near.least, near.most, near.num_pairs) == (3, 3, 3)
    assert near.accuracy.mean == near.longer_wins.mean == pytest.approx(2 / 3)
    assert near.longer_chosen
    assert near.shorter_chosen
    assert (near.longer_chosen.mean, near.shorter_chosen.mean) == (0.5, 1.0)
    assert (far.least, far.most, far.num_pairs) == (10, 12, 3)
    assert far.longer_chosen
    assert far.shorter_chosen
    assert (far.longer_chosen.mean, far.shorter_chosen.mean) == (1.0, 0.0)


def test_a_judge_of_length_alone_is_found_out_in_every_bin() -> None:
    gap_N = np.random.default_rng(1).integers(-40, 40, size=500)
    bins = accuracy_by_length_gap(gap_N.astype(float), gap_N, list(range(500)), seed=0, draws=20)
    assert sum(each.num_pairs for each in bins) == 500
    assert [each.least for each in bins] == sorted(each.least for each in bins)
    for each in bins:
        inside = [gap for gap in gap_N.tolist() if each.least <= abs(gap) <= each.most]
        assert each.num_pairs == len(inside)
        assert each.accuracy.mean == pytest.approx(sum((g > 0) + 0.5 * (g == 0) for g in inside) / len(inside))
        assert each.accuracy == each.longer_wins
        if each.most:
            assert each.longer_chosen
            assert each.shorter_chosen
            assert (each.longer_chosen.mean, each.shorter_chosen.mean) == (1.0, 0.0)


def test_pairs_of_one_difference_are_one_bin() -> None:
    (only,) = accuracy_by_length_gap(np.ones(4), np.array([5, -5, 5, 5]), list("abcd"), seed=0, draws=10)
    assert (only.least, only.most, only.num_pairs) == (5, 5, 4)
