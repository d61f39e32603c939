"""Two models on the same prompts: who wins, by how much, on which kinds of prompt, and at what length.

Everything is paired: the unit is the prompt, and where a prompt has several answers they are matched by their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanbai.evaluation.answers import AXES, ScoredAnswer
from sanbai.evaluation.statistics import DRAWS, Estimate, holm, paired_difference, paired_win_rate, sign_test
from sanbai.foundation.errors import DataError

SETBACK_POINTS = 0.10
"""A kind that falls by more than a tenth on any axis, gold utility among them, is named, whatever its interval."""


@dataclass(frozen=True)
class Contest:
    """One model against another on some prompts.

    Attributes:
        win_rate: how often ours has the higher gold utility, ties counting one half.
        differences: ours minus theirs for each of `AXES`.
        length_difference: ours minus theirs, in words.
        p_value: exact sign test on gold utility that neither is better, two-sided.
    """

    win_rate: Estimate
    differences: Mapping[str, Estimate]
    length_difference: Estimate
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """A contest overall and by kind of prompt.

    Attributes:
        overall: on all prompts.
        by_kind: on the prompts of each kind.
        adjusted_p_values: of the kinds, Holm's; below 0.05 a kind's change is no accident of there being many kinds.
    """

    overall: Contest
    by_kind: Mapping[str, Contest]
    adjusted_p_values: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        kinds = {
            kind: {**_contest_to_json(contest), "adjusted_p_value": self.adjusted_p_values[kind]}
            for kind, contest in self.by_kind.items()
        }
        return {**_contest_to_json(self.overall), "by_kind": kinds}


@dataclass(frozen=True, slots=True)
class Setback:
    """Something that became worse and that a verdict has to name.

    Attributes:
        where: "all prompts" or a kind.
        axis: one of `AXES`.
        difference: ours minus theirs.
    """

    where: str
    axis: str
    difference: Estimate

    def line(self) -> str:
        """Say it in words."""
        change = self.difference
        name = self.axis.replace("_", " ")
        interval = f"95 % interval {change.low:+.3f} to {change.high:+.3f}, n {change.n}"
        return f"{self.where}: {name} {change.mean:+.3f} ({interval})"


def win_rate(
    ours: Sequence[ScoredAnswer], theirs: Sequence[ScoredAnswer], *, seed: int, draws: int = DRAWS
) -> Estimate:
    """Return how often our answer has the higher gold utility, ties counting one half, with an interval by prompt."""
    pairs = _pairs(ours, theirs)
    return paired_win_rate(
        [a.gold_utility for a, _ in pairs],
        [b.gold_utility for _, b in pairs],
        [a.prompt for a, _ in pairs],
        seed=seed,
        draws=draws,
    )


def compare(
    ours: Sequence[ScoredAnswer], theirs: Sequence[ScoredAnswer], *, seed: int, draws: int = DRAWS
) -> Comparison:
    """Compare two models' answers to the same prompts.

    Args:
        ours: the later model's.
        theirs: the earlier model's; the same prompts and samples in any order.
        seed: of the bootstrap.
        draws: resamples.

    Raises:
        DataError: the two did not answer the same prompts.
    """
    pairs = _pairs(ours, theirs)
    kinds = sorted({answer.kind for answer, _ in pairs})
    by_kind = {
        kind: _contest([pair for pair in pairs if pair[0].kind == kind], seed=seed, draws=draws) for kind in kinds
    }
    return Comparison(
        overall=_contest(pairs, seed=seed, draws=draws),
        by_kind=by_kind,
        adjusted_p_values=holm({kind: contest.p_value for kind, contest in by_kind.items()}),
    )


def setbacks(comparison: Comparison, *, points: float = SETBACK_POINTS) -> list[Setback]:
    """Name what became worse: an interval wholly below zero, or a kind that fell by more than `points`."""
    found = [
        Setback(where="all prompts", axis=axis, difference=difference)
        for axis, difference in comparison.overall.differences.items()
        if difference.high < 0
    ]
    for kind, contest in comparison.by_kind.items():
        for axis, difference in contest.differences.items():
            if difference.high < 0 or difference.mean < -points:
                found.append(Setback(where=kind, axis=axis, difference=difference))
    return found


Pair = tuple[ScoredAnswer, ScoredAnswer]


def _pairs(ours: Sequence[ScoredAnswer], theirs: Sequence[ScoredAnswer]) -> list[Pair]:
    """Match answers by prompt and sample, in our order."""
    by_key = {(row.prompt, row.sample): row for row in theirs}
    if {(row.prompt, row.sample) for row in ours} != set(by_key) or len(ours) != len(theirs):
        raise DataError(
            f"two models were not asked the same: {len(ours)} answers against {len(theirs)}; "
            "evaluate both on the same prompts"
        )
    return [(row, by_key[row.prompt, row.sample]) for row in ours]


def _contest(pairs: Sequence[Pair], *, seed: int, draws: int) -> Contest:
    prompts = [a.prompt for a, _ in pairs]

    def difference(axis: str) -> Estimate:
        ours, theirs = [getattr(a, axis) for a, _ in pairs], [getattr(b, axis) for _, b in pairs]
        return paired_difference(ours, theirs, prompts, seed=seed, draws=draws)

    gold_ours, gold_theirs = [a.gold_utility for a, _ in pairs], [b.gold_utility for _, b in pairs]
    return Contest(
        win_rate=paired_win_rate(gold_ours, gold_theirs, prompts, seed=seed, draws=draws),
        differences={axis: difference(axis) for axis in AXES},
        length_difference=difference("length"),
        p_value=sign_test(gold_ours, gold_theirs),
    )


def _contest_to_json(contest: Contest) -> dict[str, Any]:
    return {
        "win_rate": contest.win_rate.to_json(),
        "differences": {axis: estimate.to_json() for axis, estimate in contest.differences.items()},
        "length_difference": contest.length_difference.to_json(),
        "p_value": contest.p_value,
    }
