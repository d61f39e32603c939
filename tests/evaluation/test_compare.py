from __future__ import annotations

import random
from typing import Any

import pytest
from tests.evaluation.rows import scored

from sanbai.evaluation.compare import compare, setbacks, win_rate
from sanbai.foundation.errors import DataError


def test_win_rate_matches_answers_by_prompt_whatever_their_order() -> None:
    ours = [scored("a", gold_utility=2), scored("b", gold_utility=0), scored("c", gold_utility=1)]
    theirs = [scored("c", gold_utility=1), scored("a", gold_utility=1), scored("b", gold_utility=1)]
    estimate = win_rate(ours, theirs, seed=0)
    assert estimate.mean == pytest.approx(0.5)
    assert estimate.n == 3


def test_several_answers_to_a_prompt_are_one_unit() -> None:
    ours = [scored("a", sample=0, gold_utility=2), scored("a", sample=1, gold_utility=0), scored("b")]
    theirs = [scored("a", sample=0), scored("a", sample=1), scored("b")]
    estimate = win_rate(ours, theirs, seed=0)
    assert estimate.mean == pytest.approx(0.5)
    assert estimate.n == 2


def test_kinds_are_compared_apart_and_equal_a_count() -> None:
    rng = random.Random(1)
    ours = [scored(f"p{i}", kind=rng.choice(["chat", "rewrite"]), gold_utility=rng.randrange(4)) for i in range(60)]
    theirs = [scored(row.prompt, kind=row.kind, gold_utility=rng.randrange(4)) for row in ours]
    comparison = compare(ours, theirs, seed=0)
    for kind in ("chat", "rewrite"):
        pairs = [(a.gold_utility, b.gold_utility) for a, b in zip(ours, theirs, strict=True) if a.kind == kind]
        wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)
        assert comparison.by_kind[kind].win_rate.mean == pytest.approx(wins / len(pairs))
        assert comparison.by_kind[kind].win_rate.n == len(pairs)
        assert comparison.adjusted_p_values[kind] >= comparison.by_kind[kind].p_value
    assert comparison.overall.win_rate == win_rate(ours, theirs, seed=0)
    assert set(comparison.to_json()["by_kind"]) == {"chat", "rewrite"}


def test_a_kind_that_becomes_worse_is_named_and_others_are_not() -> None:
    ours = [scored(f"s{i}", kind="sorting", helpful=0.0, gold_utility=0.2) for i in range(20)]
    ours += [scored(f"r{i}", kind="riddle", helpful=1.0) for i in range(20)]
    theirs = [scored(f"s{i}", kind="sorting", helpful=1.0) for i in range(20)]
    theirs += [scored(f"r{i}", kind="riddle", helpful=0.5, gold_utility=0.5) for i in range(20)]
    named = setbacks(compare(ours, theirs, seed=0))
    assert {(setback.where, setback.axis) for setback in named} >= {("sorting", "helpful"), ("sorting", "gold_utility")}
    assert not [setback for setback in named if setback.where == "riddle"]
    assert "sorting: helpful -1.000" in [s for s in named if s.axis == "helpful"][-1].line()


@pytest.mark.parametrize("axis", ["helpful", "gold_utility"])
def test_a_fall_of_more_than_ten_points_is_named_though_its_interval_holds_zero(axis: str) -> None:
    bad: dict[str, Any] = {axis: 0.0}
    ours, theirs = [scored("a", **bad), scored("b"), scored("c")], [scored(prompt) for prompt in "abc"]
    comparison = compare(ours, theirs, seed=0)
    assert comparison.overall.differences[axis].high == 0.0
    assert [(s.where, s.axis) for s in setbacks(comparison)] == [("chat", axis)]
    assert setbacks(comparison, points=0.5) == []


def test_models_asked_different_things_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="same prompts"):
        win_rate([scored("a")], [scored("b")], seed=0)
    with pytest.raises(DataError, match="same prompts"):
        win_rate([scored("a"), scored("a")], [scored("a")], seed=0)
