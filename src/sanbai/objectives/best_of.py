"""The best of n samples: how far it is from one sample, and what it is worth, by samples or by a known distribution.

Shapes: Y answers of an enumerable distribution, P prompts, N samples a prompt.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def best_of_kl_bound(num: int) -> float:
    """Return log n - (n - 1) / n nats: no best of `num` samples is further in KL from one sample, by whatever score.

    Exact where no two samples ever have one score (so used by Gao et al. 2022, arXiv:2210.10760); where answers repeat
    it is an upper bound, and a loose one once single answers are likelier than 1/n (Beirami et al. 2024,
    arXiv:2401.01879).
    """
    return math.log(num) - (num - 1) / num


def best_of_probability(probability_Y: Tensor, score_Y: Tensor, *, num: int) -> Tensor:
    """Return the probability of each answer as the best of `num` samples.

    q(y) = (F(y)^n - F(y^-)^n) · p(y) / Σ_{y' as good as y} p(y')

    with F(y) the probability of an answer no better than y, F(y^-) that of a worse one: the best sample's score is y's,
    and among equals each has its share (Beirami et al. 2024, for different scores).

    Args:
        probability_Y: of one sample; sums to 1.
        score_Y: what is maximised.
        num: n, at least 1.

    Returns:
        float64; its KL to `probability_Y` is the exact one that `best_of_kl_bound` bounds.
    """
    exact_Y = probability_Y.double()
    equal_YY, worse_YY = score_Y == score_Y.unsqueeze(1), score_Y < score_Y.unsqueeze(1)
    worse_Y, equal_Y = (worse_YY * exact_Y).sum(1), (equal_YY * exact_Y).sum(1)
    class_Y = (worse_Y + equal_Y).clamp_max(1) ** num - worse_Y**num
    return torch.where(equal_Y > 0, class_Y * exact_Y / equal_Y.clamp_min(1e-300), 0.0)


def best_of_value(score_PN: Tensor, value_PN: Tensor, *, num: int) -> Tensor:
    """Estimate, for each prompt, the expected value of the best by score of `num` samples, from N of them.

    The mean over all C(N, n) ways to choose n of the samples, which is unbiased and has less variance than one of them:

    Σ_i v_i [ C(k_i, n) - C(l_i, n) ] / (k_i - l_i) / C(N, n)

    where k_i samples are no better than sample i and l_i are worse; without equal scores it is the estimator of Nakano
    et al. 2021 (WebGPT, arXiv:2112.09332, appendix I).

    Args:
        score_PN: what the best is chosen by.
        value_PN: what is wanted of it: the score again, or what another judge says.
        num: n, 1 to N.

    Returns:
        value_P, float64.
    """
    worse_PN = (score_PN.unsqueeze(1) < score_PN.unsqueeze(2)).sum(2)
    no_better_PN = (score_PN.unsqueeze(1) <= score_PN.unsqueeze(2)).sum(2)
    size = score_PN.shape[1]
    share_K = torch.tensor([math.comb(k, num) / math.comb(size, num) for k in range(size + 1)], dtype=torch.float64)
    weight_PN = (share_K[no_better_PN] - share_K[worse_PN]) / (no_better_PN - worse_PN)
    return (weight_PN * value_PN.double()).sum(1)
