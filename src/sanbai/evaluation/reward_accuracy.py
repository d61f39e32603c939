"""How often a reward model agrees with held-out people on held-out prompts, beside what can be reached at all.

People disagree with each other (InstructGPT's labelers in 27 of 100 pairs), so that accuracy alone says little: it
stands beside the labelers' agreement among themselves and, where the noise is known, the best any model could do. Only
strict pairs count, and of these only pairs of different answers; a pair the model cannot tell apart counts one half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sanbai.evaluation.disagreement import Disagreement
from sanbai.evaluation.length_gap import LengthGapBin, accuracy_by_length_gap
from sanbai.evaluation.reliability import ReliabilityBin, expected_calibration_error, is_right, reliability
from sanbai.evaluation.statistics import DRAWS, Estimate, bootstrap_mean, bootstrap_ratio
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import canonical_json
from sanbai.text.chat_markup import Message


class LabeledRanking(Protocol):
    """One labeler's ordering of the answers to one prompt."""

    @property
    def messages(self) -> Sequence[Message]:
        """The prompt."""

    @property
    def responses(self) -> Sequence[str]:
        """The answers, as shown."""

    @property
    def buckets(self) -> Sequence[Sequence[int]]:
        """Indices of answers, best first; ties share a bucket."""

    @property
    def kind(self) -> str:
        """The prompt's kind."""


@dataclass(frozen=True, slots=True)
class StrictPair:
    """One labeler's word that one answer is better than another.

    Attributes:
        prompt: the messages as canonical JSON, equal for equal prompts; the unit of the intervals.
        kind: the prompt's kind.
        messages: the prompt itself.
        chosen: the better answer.
        rejected: the worse.
    """

    prompt: str
    kind: str
    messages: Sequence[Message]
    chosen: str
    rejected: str


def strict_pairs(rankings: Sequence[LabeledRanking]) -> list[StrictPair]:
    """Take rankings apart into pairs in which one answer stands above the other and the two texts differ."""
    return [
        StrictPair(
            prompt=canonical_json([dict(message) for message in ranking.messages]),
            kind=ranking.kind,
            messages=ranking.messages,
            chosen=ranking.responses[better],
            rejected=ranking.responses[worse],
        )
        for ranking in rankings
        for place, bucket in enumerate(ranking.buckets)
        for better in bucket
        for lower in ranking.buckets[place + 1 :]
        for worse in lower
        if ranking.responses[better] != ranking.responses[worse]
    ]


@dataclass(frozen=True)
class RewardAccuracy:
    """A reward model's agreement with held-out labelers.

    Attributes:
        accuracy: share of strict pairs in which the chosen answer has the higher reward.
        by_kind: the same on the pairs of each kind.
        longer_wins: what preferring the longer answer would score on the same pairs.
        calibration_error: mean gap between stated and true probability of a preference, 0 at best.
        reliability: the same gap by stated probability.
        by_length_gap: accuracy by how much longer one answer is.
        num_pairs: strict pairs; the intervals' n counts prompts.
    """

    accuracy: Estimate
    by_kind: Mapping[str, Estimate]
    longer_wins: Estimate
    calibration_error: float
    reliability: Sequence[ReliabilityBin]
    by_length_gap: Sequence[LengthGapBin]
    num_pairs: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        return {
            "accuracy": self.accuracy.to_json(),
            "by_kind": {kind: estimate.to_json() for kind, estimate in self.by_kind.items()},
            "longer_wins": self.longer_wins.to_json(),
            "calibration_error": self.calibration_error,
            "reliability": [each.to_json() for each in self.reliability],
            "by_length_gap": [each.to_json() for each in self.by_length_gap],
            "num_pairs": self.num_pairs,
        }


def reward_model_entry(
    accuracy: RewardAccuracy,
    *,
    labeler_agreement: Estimate | float,
    best_possible: Estimate | float,
    ensemble: Disagreement,
) -> dict[str, Any]:
    """Return `reward_model` of `evaluation.json`.

    Args:
        accuracy: measured on held-out prompts and labelers.
        labeler_agreement: of the same labelers among themselves; a plain number where it is known exactly.
        best_possible: what no model can beat; a plain number likewise.
        ensemble: the model together with others on the same pairs.
    """
    bounds = {"labeler_agreement": labeler_agreement, "best_possible": best_possible}
    return {
        **accuracy.to_json(),
        **{name: bound.to_json() if isinstance(bound, Estimate) else bound for name, bound in bounds.items()},
        "disagreement": ensemble.to_json(),
    }


Scorer = Callable[[Sequence[tuple[Sequence[Message], str]]], Sequence[float]]
"""[(prompt, answer), ...] -> one reward each."""


def margins(pairs: Sequence[StrictPair], score: Scorer) -> NDArray[np.float64]:
    """Return the reward of the chosen less that of the rejected answer, pair by pair; each answer is scored once.

    Raises:
        DataError: there is no pair.
    """
    if not pairs:
        raise DataError("no strict pair of different answers among the held-out rankings; collect more rankings")
    distinct = {
        (pair.prompt, answer): (pair.messages, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)
    }
    reward = dict(zip(distinct, score(list(distinct.values())), strict=True))
    return np.array([reward[pair.prompt, pair.chosen] - reward[pair.prompt, pair.rejected] for pair in pairs])


def reward_accuracy(
    pairs: Sequence[StrictPair], margin_N: NDArray[np.float64], *, seed: int, draws: int = DRAWS
) -> RewardAccuracy:
    """Count in how many pairs the chosen answer has the higher reward: of all, by kind, by confidence, by length.

    Args:
        pairs: of held-out labelers on held-out prompts.
        margin_N: from `margins`.
        seed: of the bootstrap by prompt.
        draws: resamples.
    """
    gap_N = np.array([len(pair.chosen) - len(pair.rejected) for pair in pairs])
    prompts = [pair.prompt for pair in pairs]
    kinds = np.array([pair.kind for pair in pairs])
    right_N = is_right(margin_N)

    def within(kind: str) -> Estimate:
        inside = np.flatnonzero(kinds == kind)
        return bootstrap_mean(right_N[inside], [prompts[i] for i in inside], seed=seed, draws=draws)

    curve = reliability(margin_N, prompts, seed=seed, draws=draws)
    return RewardAccuracy(
        accuracy=bootstrap_mean(right_N, prompts, seed=seed, draws=draws),
        by_kind={kind: within(kind) for kind in sorted(set(kinds.tolist()))},
        longer_wins=bootstrap_mean(is_right(gap_N.astype(np.float64)), prompts, seed=seed, draws=draws),
        calibration_error=expected_calibration_error(curve),
        reliability=curve,
        by_length_gap=accuracy_by_length_gap(margin_N, gap_N, prompts, seed=seed, draws=draws),
        num_pairs=len(pairs),
    )


def labeler_agreement(rankings: Sequence[LabeledRanking], *, seed: int, draws: int = DRAWS) -> Estimate:
    """How often two labelers who both order a pair of answers order it alike, over all pairs of such labelers.

    Raises:
        DataError: no two labelers ordered the same pair.
    """
    votes: dict[tuple[str, str, str], list[int]] = {}
    for pair in strict_pairs(rankings):
        first, second = sorted((pair.chosen, pair.rejected))
        votes.setdefault((pair.prompt, first, second), [0, 0])[pair.chosen == first] += 1
    alike: dict[str, int] = {}
    couples: dict[str, int] = {}
    for (prompt, _, _), (one, other) in votes.items():
        alike[prompt] = alike.get(prompt, 0) + comb(one, 2) + comb(other, 2)
        couples[prompt] = couples.get(prompt, 0) + comb(one + other, 2)
    ranked = [prompt for prompt, number in couples.items() if number]
    if not ranked:
        raise DataError("no two labelers ordered the same answers; give some tasks to more than one labeler")
    return bootstrap_ratio(
        [alike[prompt] for prompt in ranked], [couples[prompt] for prompt in ranked], seed=seed, draws=draws
    )
