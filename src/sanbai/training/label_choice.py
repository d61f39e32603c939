"""Which prompts, and which of their answers, to show people next: those that would teach a reward model most.

A reward is a head on a trunk's last vector, and rankings are logistic choices between rewards. Holding the trunk still,
what the rankings so far leave open about the head is a normal distribution (Laplace's approximation): a reward model's
uncertainty is then the spread of all heads that fit the rankings, an ensemble without its cost. A task's expected gain
is how much its ranking would narrow that distribution (MacKay 1992; D-optimal design), so that answers count that the
heads disagree on, that are not decided already, and that say something new beside the tasks chosen before.

Two simplifications: the trunk is held still, and a ranking's pairs count as if they were independent. Both make gains
too large or too small together and leave their order useful; `sanbai lab run cheaper_labels` measures what it is worth.

Shapes: D width, P pairs, K answers, S subsets of answers, J answers of a subset.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt that people might be asked about.

    Attributes:
        feature_KD: the trunk's vector at the end of each of its answers.
        reward_K: the answers' rewards.
    """

    feature_KD: Array
    reward_K: Array


@dataclass(frozen=True, slots=True)
class Choice:
    """A task to be ranked.

    Attributes:
        candidate: its place among the candidates.
        answers: places of the answers to show, rising.
        gain: what its ranking is expected to tell of the head, in nats, when those chosen before it are ranked.
    """

    candidate: int
    answers: tuple[int, ...]
    gain: float


def head_covariance(difference_PD: Array, margin_P: Array, *, prior_variance: float) -> Array:
    """Return the covariance of the head's weights, given the pairs that were ranked.

    (I / v + Σ_p σ(m_p) σ(-m_p) d_p d_p')⁻¹: the inverse curvature of the negative log posterior with a normal prior.

    Args:
        difference_PD: vector of the one answer less vector of the other; may be empty.
        margin_P: reward of the one less reward of the other.
        prior_variance: v, of each weight before any ranking.
    """
    weighted_PD = difference_PD * _information(margin_P)[:, None]
    precision_DD = np.eye(difference_PD.shape[1]) / prior_variance + difference_PD.T @ weighted_PD
    return np.asarray(np.linalg.inv(precision_DD), dtype=np.float64)


def expected_gain(candidate: Candidate, covariance_DD: Array, answers: Sequence[int]) -> float:
    """Return what a ranking of some answers is expected to tell of the head, in nats.

    ½ log det(I + L F Σ F'), with F the answers' vectors and L the graph Laplacian of their pairs' information,
    L_ij = -σ(m_ij) σ(-m_ij), L_ii = -Σ_j L_ij.
    """
    return float(_gains(candidate, covariance_DD, np.array([answers]))[0])


def choose_tasks(
    candidates: Sequence[Candidate], covariance_DD: Array, *, num_tasks: int, num_answers: int
) -> list[Choice]:
    """Return the tasks to ask about, each the best beside those before it; fewer if there are no more candidates.

    Greedy, and near the best set: what a task adds only shrinks as others are chosen, so one that was not best with its
    old gain need not be looked at again (Minoux 1978). Of each candidate every subset of answers is tried.

    Args:
        candidates: at least two answers each.
        covariance_DD: of the head, as `head_covariance` returns it.
        num_tasks: at most so many.
        num_answers: shown of each, all where there are no more.
    """
    found: list[Choice] = []

    def look_at(place: int) -> tuple[float, int, tuple[int, ...], int]:
        candidate = candidates[place]
        num_all = len(candidate.reward_K)
        subsets_SJ = np.array(list(combinations(range(num_all), min(num_answers, num_all))))
        gain_S = _gains(candidate, covariance_DD, subsets_SJ)
        best = int(gain_S.argmax())
        return -float(gain_S[best]), place, tuple(subsets_SJ[best].tolist()), len(found)

    waiting = [look_at(place) for place in range(len(candidates))]
    heapq.heapify(waiting)
    while waiting and len(found) < num_tasks:
        loss, place, answers, known = heapq.heappop(waiting)
        if known < len(found):
            heapq.heappush(waiting, look_at(place))
            continue
        found.append(Choice(place, answers, -loss))
        covariance_DD = _after(candidates[place], covariance_DD, answers)
    return found


def _gains(candidate: Candidate, covariance_DD: Array, subsets_SJ: NDArray[np.int64]) -> Array:
    """Return the expected gain of each subset of a candidate's answers."""
    spread_KK = candidate.feature_KD @ covariance_DD @ candidate.feature_KD.T
    spread_SJJ = spread_KK[subsets_SJ[:, :, None], subsets_SJ[:, None, :]]
    laplacian_SJJ = _laplacians(candidate.reward_K[subsets_SJ])
    gain_S: Array = np.linalg.slogdet(np.eye(subsets_SJ.shape[1]) + laplacian_SJJ @ spread_SJJ)[1] / 2
    return gain_S


def _after(candidate: Candidate, covariance_DD: Array, answers: Sequence[int]) -> Array:
    """Return the covariance when some answers of a candidate have been ranked (Woodbury's identity)."""
    feature_JD = candidate.feature_KD[list(answers)]
    laplacian_JJ = _laplacians(candidate.reward_K[None, list(answers)])[0]
    seen_JD = feature_JD @ covariance_DD
    inner_JJ = np.eye(len(answers)) + laplacian_JJ @ seen_JD @ feature_JD.T
    return covariance_DD - seen_JD.T @ np.linalg.solve(inner_JJ, laplacian_JJ @ seen_JD)


def _laplacians(reward_SJ: Array) -> Array:
    """Return the graph Laplacian of the information in the pairs of each subset."""
    information_SJJ = _information(reward_SJ[:, :, None] - reward_SJ[:, None, :])
    laplacian_SJJ: Array = np.eye(reward_SJ.shape[1]) * information_SJJ.sum(axis=2)[:, :, None] - information_SJJ
    return laplacian_SJJ


def _information(margin: Array) -> Array:
    """Return σ(m) σ(-m), the information of a logistic choice about its margin."""
    half: Array = 1 / (2 * np.cosh(np.clip(margin, -60, 60) / 2))
    return half**2
