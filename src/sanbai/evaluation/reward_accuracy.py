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

from sanbai.evaluation.statistics import DRAWS, Estimate, bootstrap_mean, bootstrap_ratio
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import canonical_json
from sanbai.text.chat_markup import Message

CALIBRATION_BINS = 10


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
        num_pairs: strict pairs; the intervals' n counts prompts.
    """

    accuracy: Estimate
    by_kind: Mapping[str, Estimate]
    longer_wins: Estimate
    calibration_error: float
    num_pairs: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        return {
            "accuracy": self.accuracy.to_json(),
            "by_kind": {kind: estimate.to_json() for kind, estimate in self.by_kind.items()},
            "longer_wins": self.longer_wins.to_json(),
            "calibration_error": self.calibration_error,
            "num_pairs": self.num_pairs,
        }


def reward_model_entry(
    accuracy: RewardAccuracy, *, labeler_agreement: Estimate | float, best_possible: Estimate | float
) -> dict[str, Any]:
    """Return `reward_model` of `evaluation.json`.

    Args:
        accuracy: measured on held-out prompts and labelers.
        labeler_agreement: of the same labelers among themselves; a plain number where it is known exactly.
        best_possible: what no model can beat; a plain number likewise.
    """
    bounds = {"labeler_agreement": labeler_agreement, "best_possible": best_possible}
    return {
        **accuracy.to_json(),
        **{name: bound.to_json() if isinstance(bound, Estimate) else bound for name, bound in bounds.items()},
    }


Scorer = Callable[[Sequence[tuple[Sequence[Message], str]]], Sequence[float]]
"""[(prompt, answer), ...] -> one reward each."""


def reward_accuracy(pairs: Sequence[StrictPair], score: Scorer, *, seed: int, draws: int = DRAWS) -> RewardAccuracy:
    """Score every answer once and count in how many pairs the chosen one has the higher reward.

    Args:
        pairs: of held-out labelers on held-out prompts.
        score: the reward model; called once with each distinct answer of each prompt.
        seed: of the bootstrap by prompt.
        draws: resamples.

    Raises:
        DataError: there is no pair.
    """
    if not pairs:
        raise DataError("no strict pair of different answers among the held-out rankings; collect more rankings")
    distinct = {
        (pair.prompt, answer): (pair.messages, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)
    }
    reward = dict(zip(distinct, score(list(distinct.values())), strict=True))
    margin_N = np.array([reward[pair.prompt, pair.chosen] - reward[pair.prompt, pair.rejected] for pair in pairs])
    length_N = np.array([float(len(pair.chosen) - len(pair.rejected)) for pair in pairs])
    prompts = [pair.prompt for pair in pairs]
    kinds = np.array([pair.kind for pair in pairs])
    right_N = _right(margin_N)

    def within(kind: str) -> Estimate:
        inside = np.flatnonzero(kinds == kind)
        return bootstrap_mean(right_N[inside], [prompts[i] for i in inside], seed=seed, draws=draws)

    return RewardAccuracy(
        accuracy=bootstrap_mean(right_N, prompts, seed=seed, draws=draws),
        by_kind={kind: within(kind) for kind in sorted(set(kinds.tolist()))},
        longer_wins=bootstrap_mean(_right(length_N), prompts, seed=seed, draws=draws),
        calibration_error=expected_calibration_error(margin_N),
        num_pairs=len(pairs),
    )


def expected_calibration_error(margins: NDArray[np.float64], *, num_bins: int = CALIBRATION_BINS) -> float:
    """How far the stated probability of a preference is from its frequency, on average over pairs.

    A reward model says P(chosen over rejected) = σ(margin); its confidence is max(p, 1 - p), in [½, 1]. In bins of
    equal width:  Σ_b n_b / N · | mean confidence - share right |  (Naeini et al. 2015; Guo et al. 2017).

    Args:
        margins: reward of the chosen less reward of the rejected answer, shape N.
        num_bins: bins over [½, 1].
    """
    confidence_N = 1 / (1 + np.exp(-np.abs(margins)))
    bin_N = np.minimum(((confidence_N - 0.5) * 2 * num_bins).astype(np.int64), num_bins - 1)
    confidence_sum = np.bincount(bin_N, weights=confidence_N, minlength=num_bins)
    right_sum = np.bincount(bin_N, weights=_right(margins), minlength=num_bins)
    return float(np.abs(confidence_sum - right_sum).sum() / len(margins))


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


def _right(margin_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where the margin is positive, ½ where it is nothing."""
    return np.where(margin_N == 0, 0.5, (margin_N > 0).astype(np.float64))
