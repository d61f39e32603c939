"""Learning a reward from rankings: InstructGPT's equation 1 with ties, several labelers, and one element a prompt.

Shapes: B prompts, K answers a prompt (padded to the largest K of the batch).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sanbai.objectives.pairs import mean_over_pairs, pair_margins


def ranking_loss(reward_BK: Tensor, preference_BKK: Tensor, *, denominator: float) -> Tensor:
    """Negative log-likelihood of the strict preferences: mean over a prompt's pairs, then over prompts.

        loss = Σ_b [ 1/n_b Σ_ij c_bij · (-log σ(r_bi - r_bj)) ] / denominator,   n_b = Σ_ij c_bij

    (Ouyang et al. 2022, arXiv:2203.02155, eq. 1.) Two choices that the paper leaves or makes otherwise: a tie gives no
    pair and is not counted in n_b (the paper divides by C(K, 2)); and several labelers' rankings of the same answers
    are added up in c, so that the prompt stays one element and each answer is scored once.

    Args:
        reward_BK: scalar rewards; padding may hold anything finite. Carries the gradient.
        preference_BKK: c_bij, how many labelers placed answer i strictly above answer j; 0 for ties and padding.
        denominator: prompts with a pair in the whole batch, of which these may be a part.

    Returns:
        A float32 scalar; log 2 for a whole batch where all rewards are equal.
    """
    return mean_over_pairs(-F.logsigmoid(pair_margins(reward_BK)), preference_BKK, denominator=denominator)


def pair_accuracy(reward_BK: Tensor, preference_BKK: Tensor) -> Tensor:
    """Share of strict preferences whose preferred answer has the higher reward; equal rewards count one half.

    Args:
        reward_BK: scalar rewards.
        preference_BKK: as in `ranking_loss`.
    """
    margin_BKK = pair_margins(reward_BK)
    right_BKK = (margin_BKK > 0).float() + 0.5 * (margin_BKK == 0).float()
    return (right_BKK * preference_BKK).sum() / preference_BKK.sum()
