"""Agreement by labeler against a slow loop, and on labelers made to go against the others."""

from __future__ import annotations

import random

import pytest

from sanbai.data.rankings import Ranking
from sanbai.evaluation.labelers import against_the_others, agreement_by_labeler


def rankings_of(grades: dict[str, list[list[int]]], answers: int) -> list[Ranking]:
    """Labeler -> a list of grades a prompt; equal grades tie, an empty list is a prompt that he was not asked."""
    found = []
    for labeler, prompts in grades.items():
        for number, grade in enumerate(prompts):
            if grade:
                levels = sorted(set(grade), reverse=True)
                buckets = tuple(tuple(i for i in range(answers) if grade[i] == level) for level in levels)
                messages = ({"role": "user", "content": f"question {number}"},)
                texts = tuple(f"answer {i}" for i in range(answers))
                found.append(Ranking(f"{labeler}-{number}", messages, texts, buckets, labeler))
    return found


def test_shares_are_those_of_a_slow_loop_over_pairs_of_labelers() -> None:
    generator = random.Random(0)
    grades = {
        name: [[generator.randrange(3) for _ in range(4)] if generator.random() < 0.8 else [] for _ in range(6)]
        for name in ("ada", "ben", "cleo")
    }
    found = agreement_by_labeler(rankings_of(grades, 4), seed=0, draws=200)
    for name, mine in grades.items():
        alike = both = 0
        for other, theirs in grades.items():
            for one, two in zip(mine, theirs, strict=True):
                if other == name or not one or not two:
                    continue
                for i in range(4):
                    for j in range(i):
                        if one[i] != one[j] and two[i] != two[j]:
                            both += 1
                            alike += (one[i] > one[j]) == (two[i] > two[j])
        assert found[name].mean == pytest.approx(alike / both)


def test_only_who_orders_the_wrong_way_round_is_named() -> None:
    generator = random.Random(1)
    true = [[generator.random() for _ in range(4)] for _ in range(60)]

    def seen(sign: float) -> list[list[int]]:
        return [[round(10 * (sign * value + generator.gauss(0, 0.3))) for value in row] for row in true]

    grades = {"ada": seen(1), "ben": seen(1), "cleo": seen(1), "dan": seen(1), "eve": seen(-1)}
    agreement = agreement_by_labeler(rankings_of(grades, 4), seed=0, draws=400)
    assert against_the_others(agreement) == ["eve"]


def test_who_ranked_alone_is_left_out() -> None:
    grades = {"ada": [[1, 2], []], "ben": [[], [2, 1]]}
    assert agreement_by_labeler(rankings_of(grades, 2), seed=0, draws=200) == {}
