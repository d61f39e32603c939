"""Best of n against enumeration."""

from __future__ import annotations

import math
from itertools import combinations, product
from statistics import fmean

import pytest

from sanbai.objectives.best_of_n import best_of_n_kl, best_of_n_mean


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("rewards", [(3.0, -1.0, 0.5, 2.0, 7.0, 4.0), (1.0, 1.0, 0.0, 2.0, 2.0, 2.0), (0.0,) * 6])
def test_the_estimate_is_the_mean_over_all_subsets_with_ties_shared(n: int, rewards: tuple[float, ...]) -> None:
    values = (0.1, 0.9, 0.4, 0.3, 0.8, 0.2)
    worth = []
    for subset in combinations(range(6), n):
        best = max(rewards[place] for place in subset)
        worth.append(fmean(values[place] for place in subset if rewards[place] == best))
    if len(set(rewards)) == 6:  # a tie within a subset is shared by its members; over all subsets that is the same
        assert best_of_n_mean(rewards, values, n=n) == pytest.approx(fmean(worth))
    shared = {
        reward: fmean(value for one, value in zip(rewards, values, strict=True) if one == reward) for reward in rewards
    }
    by_reward = [shared[max(rewards[place] for place in subset)] for subset in combinations(range(6), n)]
    assert best_of_n_mean(rewards, values, n=n) == pytest.approx(fmean(by_reward))


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_divergence_is_that_of_many_equally_likely_answers_in_the_limit_and_never_more(n: int) -> None:
    def enumerated(num_answers: int) -> float:
        """KL of the best of n over answers 0, 1, ... of equal probability, the later the better."""
        counts = [0] * num_answers
        for draws in product(range(num_answers), repeat=n):
            counts[max(draws)] += 1
        return sum(count / num_answers**n * math.log(count / num_answers**n * num_answers) for count in counts if count)

    few, many = enumerated(3), enumerated(12)
    assert few <= many <= best_of_n_kl(n) + 1e-12
    assert best_of_n_kl(n) - many < 0.15 * best_of_n_kl(n) + 1e-12
