"""The expected gain of a ranking by direct determinants, and the choice of tasks by trying everything."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.special import expit

from sanbai.foundation.seeds import numpy_generator
from sanbai.training.label_choice import Candidate, choose_tasks, expected_gain, head_covariance

WIDTH, PRIOR = 5, 0.4


def candidates(num: int, num_answers: int, seed: int = 0) -> list[Candidate]:
    generator = numpy_generator(seed, "candidates")
    return [
        Candidate(generator.normal(size=(num_answers, WIDTH)), 2 * generator.normal(size=num_answers))
        for _ in range(num)
    ]


def precision(tasks: list[tuple[Candidate, tuple[int, ...]]]) -> np.ndarray:
    """Prior and pairs of the tasks, added up one by one."""
    total = np.eye(WIDTH) / PRIOR
    for candidate, answers in tasks:
        for i, j in combinations(answers, 2):
            difference = candidate.feature_KD[i] - candidate.feature_KD[j]
            p = expit(candidate.reward_K[i] - candidate.reward_K[j])
            total += p * (1 - p) * np.outer(difference, difference)
    return total


def test_the_covariance_is_the_inverse_curvature_of_logistic_regression() -> None:
    (candidate,) = candidates(1, 4)
    pairs = list(combinations(range(4), 2))
    difference_PD = np.array([candidate.feature_KD[i] - candidate.feature_KD[j] for i, j in pairs])
    margin_P = np.array([candidate.reward_K[i] - candidate.reward_K[j] for i, j in pairs])
    found = head_covariance(difference_PD, margin_P, prior_variance=PRIOR)
    np.testing.assert_allclose(found, np.linalg.inv(precision([(candidate, (0, 1, 2, 3))])), rtol=1e-9)
    nothing = head_covariance(np.zeros((0, WIDTH)), np.zeros(0), prior_variance=PRIOR)
    np.testing.assert_allclose(nothing, PRIOR * np.eye(WIDTH))


def test_the_gain_is_the_fall_of_the_head_s_entropy() -> None:
    known, candidate = candidates(2, 5)
    before = precision([(known, (0, 1, 2, 3, 4))])
    for answers in ((0, 1), (1, 3, 4), (0, 1, 2, 3, 4)):
        after = before - np.eye(WIDTH) / PRIOR + precision([(candidate, answers)])
        expected = (np.linalg.slogdet(after)[1] - np.linalg.slogdet(before)[1]) / 2
        assert expected_gain(candidate, np.linalg.inv(before), answers) == pytest.approx(expected)


def test_the_choice_is_that_of_trying_everything_at_each_turn() -> None:
    given = candidates(12, 4, seed=3)
    chosen: list[tuple[Candidate, tuple[int, ...]]] = []
    left = set(range(12))
    for choice in choose_tasks(given, PRIOR * np.eye(WIDTH), num_tasks=7, num_answers=3):
        covariance_DD = np.linalg.inv(precision(chosen))
        gains = {
            (place, answers): expected_gain(given[place], covariance_DD, answers)
            for place in left
            for answers in combinations(range(4), 3)
        }
        assert (choice.candidate, choice.answers) == max(gains, key=lambda key: gains[key])
        assert choice.gain == pytest.approx(max(gains.values()))
        chosen.append((given[choice.candidate], choice.answers))
        left.remove(choice.candidate)
    assert len(chosen) == 7


def test_the_greedy_choice_is_near_the_best_set() -> None:
    given = candidates(8, 2, seed=5)

    def whole_gain(places: tuple[int, ...]) -> float:
        after = precision([(given[place], (0, 1)) for place in places])
        return float(np.linalg.slogdet(after)[1] - np.linalg.slogdet(np.eye(WIDTH) / PRIOR)[1]) / 2

    best = max(whole_gain(places) for places in combinations(range(8), 3))
    choices = choose_tasks(given, PRIOR * np.eye(WIDTH), num_tasks=3, num_answers=2)
    assert sum(choice.gain for choice in choices) == pytest.approx(
        whole_gain(tuple(choice.candidate for choice in choices))
    )
    assert sum(choice.gain for choice in choices) >= (1 - 1 / np.e) * best


def test_what_is_decided_or_said_already_is_not_asked() -> None:
    vector = np.zeros((2, WIDTH))
    vector[0, 0] = 3.0
    other = np.zeros((2, WIDTH))
    other[0, 1] = 2.0
    undecided = Candidate(vector, np.zeros(2))
    decided = Candidate(vector, np.array([9.0, 0.0]))
    elsewhere = Candidate(other, np.zeros(2))
    same = Candidate(np.zeros((2, WIDTH)), np.zeros(2))
    choices = choose_tasks([decided, undecided, undecided, same, elsewhere], np.eye(WIDTH), num_tasks=9, num_answers=2)
    assert [choice.candidate for choice in choices] == [1, 4, 2, 0, 3]
    assert choices[-1].gain == pytest.approx(0.0)


def test_the_order_of_answers_and_candidates_does_not_matter() -> None:
    (candidate,) = candidates(1, 3)
    gains = [
        expected_gain(
            Candidate(candidate.feature_KD[list(order)], candidate.reward_K[list(order)]), np.eye(WIDTH), (0, 1, 2)
        )
        for order in permutations(range(3))
    ]
    assert gains == pytest.approx([gains[0]] * 6)
    assert choose_tasks([], np.eye(WIDTH), num_tasks=3, num_answers=2) == []
