from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from sanbai.evaluation.disagreement import disagreement
from sanbai.evaluation.reward_accuracy import (
    RewardAccuracy,
    Scorer,
    labeler_agreement,
    margins,
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


def accuracy_of(rankings: Sequence[Ranked], score: Scorer) -> RewardAccuracy:
    pairs = strict_pairs(rankings)
    return reward_accuracy(pairs, margins(pairs, score), seed=0)


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
    scored = accuracy_of(rankings, by_length)
    assert scored.num_pairs == 5
    assert scored.accuracy.mean == pytest.approx((3 + 0.5 + 0) / 5)
    assert scored.accuracy.n == 3
    assert scored.by_kind["chat"].mean == 1.0
    assert scored.by_kind["rewrite"].mean == pytest.approx(0.25)
    assert scored.longer_wins == scored.accuracy
    # aaa-b, aaa-cc, cc-b, dd-ee, f-gg: what the length says, right for three, nothing for one, wrong for one.
    assert [(b.least, b.most, b.num_pairs, b.accuracy.mean) for b in scored.by_length_gap] == [
        (0, 0, 1, 0.5),
        (1, 1, 3, pytest.approx(2 / 3)),
        (2, 2, 1, 1.0),
    ]


def test_each_distinct_answer_is_scored_once() -> None:
    seen: list[str] = []

    def score(answers: Sequence[tuple[Sequence[Message], str]]) -> list[float]:
        seen.extend(answer for _, answer in answers)
        return by_length(answers)

    margins(strict_pairs([Ranked("p", ["aaa", "b", "cc"], [[0], [2], [1]])] * 5), score)
    assert sorted(seen) == ["aaa", "b", "cc"]


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
        accuracy_of([Ranked("p", ["a", "a"], [[0], [1]])], by_length)


def test_the_entry_of_the_record_takes_exact_numbers_and_estimates() -> None:
    accuracy = accuracy_of([Ranked("p", ["aa", "b"], [[0], [1]])], by_length)
    ensemble = disagreement(np.array([[1.0, 2.0], [1.0, -1.0]]), ["p", "q"], seed=0)
    entry = reward_model_entry(accuracy, labeler_agreement=wilson(8, 10), best_possible=0.77, ensemble=ensemble)
    assert entry["best_possible"] == 0.77
    assert entry["labeler_agreement"]["n"] == 10
    assert entry["accuracy"]["mean"] == 1.0
    assert entry["disagreement"]["num_models"] == 2
    assert entry["by_length_gap"][0].keys() == {
        "least", "most", "accuracy", "longer_wins", "longer_chosen", "num_pairs"
    }  # fmt: skip
    json.dumps(entry)
