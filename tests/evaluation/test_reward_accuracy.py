from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from sanbai.evaluation.reward_accuracy import (
    expected_calibration_error,
    labeler_agreement,
    reward_accuracy,
    reward_model_entry,
    strict_pairs,
)
from sanbai.evaluation.statistics import wilson
from sanbai.foundation.errors import DataError
from sanbai.text.chat_markup import Message


@dataclass
class Ranked:
    question: str
    responses: list[str]
    buckets: list[list[int]]
    kind: str = "chat"

    @property
    def messages(self) -> list[Message]:
        return [{"role": "user", "content": self.question}]


def by_length(answers: Sequence[tuple[Sequence[Message], str]]) -> list[float]:
    return [float(len(answer)) for _, answer in answers]


def test_strict_pairs_leave_out_ties_and_identical_answers() -> None:
    ranked = Ranked("p", ["a", "b", "c", "a"], [[2], [0, 1], [3]])
    pairs = {(pair.chosen, pair.rejected) for pair in strict_pairs([ranked])}
    assert pairs == {("c", "a"), ("c", "b"), ("b", "a")}
    # c>a, c>b, c>a(3), b>a(3); a>a(3) is the same text, a and b are tied.
    assert len(strict_pairs([ranked])) == 4


def test_accuracy_by_hand() -> None:
    rankings = [
        Ranked("p", ["aaa", "b", "cc"], [[0], [2], [1]]),
        Ranked("q", ["dd", "ee"], [[0], [1]], kind="rewrite"),
        Ranked("r", ["f", "gg"], [[0], [1]], kind="rewrite"),
    ]
    scored = reward_accuracy(strict_pairs(rankings), by_length, seed=0)
    assert scored.num_pairs == 5
    assert scored.accuracy.mean == pytest.approx((3 + 0.5 + 0) / 5)
    assert scored.accuracy.n == 3
    assert scored.by_kind["chat"].mean == 1.0
    assert scored.by_kind["rewrite"].mean == pytest.approx(0.25)
    assert scored.longer_wins == scored.accuracy


def test_each_distinct_answer_is_scored_once() -> None:
    seen: list[str] = []

    def score(answers: Sequence[tuple[Sequence[Message], str]]) -> list[float]:
        seen.extend(answer for _, answer in answers)
        return by_length(answers)

    reward_accuracy(strict_pairs([Ranked("p", ["aaa", "b", "cc"], [[0], [2], [1]])] * 5), score, seed=0)
    assert sorted(seen) == ["aaa", "b", "cc"]


def test_calibration_error_equals_a_slow_loop_and_vanishes_for_a_calibrated_model() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(size=500) * 2
    bins: list[list[tuple[float, float]]] = [[] for _ in range(10)]
    for margin in margins.tolist():
        p = 1 / (1 + math.exp(-margin))
        confidence = max(p, 1 - p)
        bins[min(9, math.floor((confidence - 0.5) / 0.05))].append((confidence, float(margin > 0)))
    expected = sum(len(b) / 500 * abs(sum(c for c, _ in b) / len(b) - sum(r for _, r in b) / len(b)) for b in bins if b)
    assert expected_calibration_error(margins) == pytest.approx(expected)

    strength = rng.normal(size=200_000) * 2
    chosen_first = rng.random(200_000) < 1 / (1 + np.exp(-strength))
    assert expected_calibration_error(np.where(chosen_first, strength, -strength)) < 0.01
    assert expected_calibration_error(np.where(chosen_first, strength, -strength) * 4) > 0.1


def test_agreement_equals_a_loop_over_pairs_of_labelers() -> None:
    orders = [[[0], [1], [2]], [[0], [2], [1]], [[2], [1], [0]], [[0], [1], [2]]]
    rankings = [Ranked("p", ["a", "b", "c"], order) for order in orders]
    alike = total = 0
    for one, other in itertools.combinations(orders, 2):
        for x, y in itertools.combinations(range(3), 2):
            place_one, place_other = [o.index([x]) < o.index([y]) for o in (one, other)]
            alike, total = alike + (place_one == place_other), total + 1
    assert labeler_agreement(rankings, seed=0).mean == pytest.approx(alike / total)
    with pytest.raises(DataError, match="more than one labeler"):
        labeler_agreement(rankings[:1], seed=0)


def test_rankings_without_a_strict_pair_are_an_error_in_words() -> None:
    with pytest.raises(DataError, match="collect more rankings"):
        reward_accuracy(strict_pairs([Ranked("p", ["a", "a"], [[0], [1]])]), by_length, seed=0)


def test_the_entry_of_the_record_takes_exact_numbers_and_estimates() -> None:
    accuracy = reward_accuracy(strict_pairs([Ranked("p", ["aa", "b"], [[0], [1]])]), by_length, seed=0)
    entry = reward_model_entry(accuracy, labeler_agreement=wilson(8, 10), best_possible=0.77)
    assert entry["best_possible"] == 0.77
    assert entry["labeler_agreement"]["n"] == 10
    assert entry["accuracy"]["mean"] == 1.0
