"""Oracles: every sequence of n samples of a small distribution, and every choice of n of N samples."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from sanbai.objectives.best_of import best_of_kl_bound, best_of_probability, best_of_value

PROBABILITIES = [Fraction(1, 20), Fraction(3, 20), Fraction(6, 20), Fraction(2, 20), Fraction(8, 20)]
DIFFERENT = [0.3, -1.0, 2.0, 1.5, 0.0]
WITH_EQUALS = [0.3, 1.5, -1.0, 1.5, 0.3]


def enumerated(scores: list[float], num: int) -> list[float]:
    """The probability of each answer to be the first of the best among n samples."""
    found = [Fraction(0)] * len(scores)
    for drawn in itertools.product(range(len(scores)), repeat=num):
        best = max(drawn, key=lambda answer: scores[answer])  # the first among equals
        found[best] += math.prod(PROBABILITIES[answer] for answer in drawn)
    return [float(probability) for probability in found]


@pytest.mark.parametrize("scores", [DIFFERENT, WITH_EQUALS])
@pytest.mark.parametrize("num", [1, 2, 5])
def test_the_distribution_of_the_best_is_that_of_all_sequences_of_samples(scores: list[float], num: int) -> None:
    probability_Y = torch.tensor([float(one) for one in PROBABILITIES], dtype=torch.float64)
    found_Y = best_of_probability(probability_Y, torch.tensor(scores), num=num)
    assert found_Y.tolist() == pytest.approx(enumerated(scores, num), abs=1e-12)


def exact_kl(probability_Y: torch.Tensor, score_Y: torch.Tensor, num: int) -> float:
    best_Y = best_of_probability(probability_Y, score_Y, num=num)
    return float(torch.special.xlogy(best_Y, best_Y / probability_Y).sum())


@pytest.mark.parametrize("num", [1, 2, 8])
def test_many_equally_likely_answers_reach_the_bound(num: int) -> None:
    probability_Y = torch.full((3000,), 1 / 3000, dtype=torch.float64)
    kl = exact_kl(probability_Y, torch.randperm(3000, generator=torch.Generator().manual_seed(0)), num)
    assert kl <= best_of_kl_bound(num) + 1e-12
    assert kl == pytest.approx(best_of_kl_bound(num), abs=1e-3)


@pytest.mark.parametrize("num", [1, 2, 8, 64])
def test_few_answers_stay_below_the_bound_and_end_at_the_best_answer(num: int) -> None:
    probability_Y = torch.tensor([float(one) for one in PROBABILITIES], dtype=torch.float64)
    kl = exact_kl(probability_Y, torch.tensor(DIFFERENT), num)
    assert 0 <= kl <= best_of_kl_bound(num) + 1e-12
    if num == 64:
        assert kl == pytest.approx(-math.log(6 / 20), rel=1e-6)  # always the best answer, of probability 6/20
        assert kl < best_of_kl_bound(num) / 2


def test_the_bound_holds_by_hand() -> None:
    assert best_of_kl_bound(1) == 0.0
    assert best_of_kl_bound(4) == pytest.approx(math.log(4) - 0.75)


SAMPLES = [
    [0.4, -1.0, 2.5, 0.4, 1.0, -3.0, 0.9],
    [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
]
VALUES = [
    [1.0, 2.0, -1.0, 0.5, 3.0, 7.0, 0.0],
    [3.0, 0.0, -6.0, 1.0, 2.0, 3.0, 4.0],
    [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.5],
]


def subset_mean(scores: list[float], values: list[float], num: int) -> float:
    """The mean value of the best over all choices; equals share it evenly."""
    found = []
    for chosen in itertools.combinations(range(len(scores)), num):
        best = max(scores[one] for one in chosen)
        equals = [values[one] for one in chosen if scores[one] == best]
        found.append(math.fsum(equals) / len(equals))
    return math.fsum(found) / len(found)


@pytest.mark.parametrize("num", range(1, 8))
def test_the_value_of_the_best_is_its_mean_over_all_choices_of_n_samples(num: int) -> None:
    score_PN, value_PN = torch.tensor(SAMPLES), torch.tensor(VALUES)
    by_hand = [subset_mean(*row, num) for row in zip(SAMPLES, VALUES, strict=True)]
    assert best_of_value(score_PN, value_PN, num=num).tolist() == pytest.approx(by_hand, abs=1e-12)
    own = [subset_mean(row, row, num) for row in SAMPLES]
    assert best_of_value(score_PN, score_PN, num=num).tolist() == pytest.approx(own, abs=1e-7)


@pytest.mark.parametrize("scores", [DIFFERENT, WITH_EQUALS])
def test_the_estimate_is_unbiased(scores: list[float]) -> None:
    """Over every sequence of N = 4 samples its mean is the exact expectation of the best of 2."""
    mean = 0.0
    value = [score**2 - score for score in scores]
    for drawn in itertools.product(range(5), repeat=4):
        score_PN = torch.tensor([[scores[answer] for answer in drawn]], dtype=torch.float64)
        value_PN = torch.tensor([[value[answer] for answer in drawn]], dtype=torch.float64)
        probability = float(math.prod(PROBABILITIES[answer] for answer in drawn))
        mean += probability * best_of_value(score_PN, value_PN, num=2).item()
    exact = math.fsum(p * v for p, v in zip(enumerated(scores, 2), value, strict=True))
    assert mean == pytest.approx(exact, abs=1e-12)


def test_with_all_samples_it_is_the_best_and_with_one_the_mean() -> None:
    score_PN = torch.tensor(SAMPLES)
    assert best_of_value(score_PN, score_PN, num=7).tolist() == pytest.approx([2.5, 1.0, 6.0])
    assert best_of_value(score_PN, score_PN, num=1).tolist() == pytest.approx(score_PN.mean(1).tolist(), abs=1e-7)
