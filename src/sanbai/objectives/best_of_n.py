"""The best of n answers by a reward model: what it is worth, and how far it is from the policy that drew them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import comb, log


def best_of_n_kl(n: int) -> float:
    """Return the most that the best of n can be away from the policy that draws, in nats a response.

    KL(best of n ‖ policy) ≤ log n - (n - 1)/n, with equality where no two answers have the same reward
    (Stiennon et al. 2020, appendix G.3; that it is a bound: Beirami et al. 2024, arXiv:2401.01879).
    """
    return log(n) - (n - 1) / n


def best_of_n_mean(rewards: Sequence[float], values: Sequence[float], *, n: int) -> float:
    """Estimate without bias what the best of n answers by their rewards is worth, from N ≥ n answers to one prompt.

    Mean over all subsets of n of the value of the one with the highest reward:
        Σ_k  C(k - 1, n - 1) / C(N, n) · value of the k-th smallest reward,   k = 1 .. N
    (Nakano et al. 2021, arXiv:2112.09332, appendix I). Among equal rewards any is as likely to be taken.

    Args:
        rewards: what answers are chosen by.
        values: what a chosen one is worth: the rewards themselves, or another judge's.
        n: answers that one is chosen of, 1 to N.
    """
    assert 1 <= n <= len(rewards) == len(values)
    ranked = sorted(zip(rewards, values, strict=True), key=lambda pair: pair[0])
    total, place = 0.0, 0
    for _, tied in groupby(ranked, key=lambda pair: pair[0]):
        worth = [value for _, value in tied]
        weight = sum(comb(k, n - 1) for k in range(place, place + len(worth)))
        total += weight * sum(worth) / len(worth)
        place += len(worth)
    return total / comb(len(ranked), n)
