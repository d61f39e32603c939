"""Rewards a token, returns and advantages for responses of different lengths, with gaps.

Shapes: B responses, T tokens. A mask is 1 on the tokens that the policy chose; 0 on padding and on tokens that others
wrote in between (a tool's output). The value of token t, V_t, is read *before* t is written: at the position of the
token before it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def last_token(mask_BT: Tensor) -> Tensor:
    """Return the index of the last 1 of each row, from the mask alone: pad may equal any other id. Each row has a 1."""
    position_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    return (position_T * mask_BT.long()).amax(1)


def token_rewards(score_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, *, kl_coef: float) -> Tensor:
    """Reward of each token: -β·KL everywhere, and the response's score on its last token.

    The sum over a response is score - β · Σ_t kl_t.

    Args:
        score_B: the judge's number for the whole response.
        kl_BT: k1 of each token in nats; anything where the mask is 0.
        mask_BT: 1 on response tokens; at least one a row.
        kl_coef: β, 0 or more.

    Returns:
        float32 (float64 stays), 0 where the mask is 0.
    """
    exact = torch.promote_types(kl_BT.dtype, torch.float32)
    reward_BT = torch.where(mask_BT.bool(), -kl_coef * kl_BT.to(exact), 0.0)
    return reward_BT.scatter_add(1, last_token(mask_BT).unsqueeze(1), score_B.to(exact).unsqueeze(1))


def generalized_advantages(
    reward_BT: Tensor, value_BT: Tensor, mask_BT: Tensor, bootstrap_B: Tensor, *, discount: float, gae_lambda: float
) -> Tensor:
    """Generalized advantage estimates, over the tokens where the mask is 1.

        δ_t = r_t + γ V_next(t) - V_t,    A_t = δ_t + γ λ A_next(t)

    (Schulman et al. 2015, arXiv:1506.02438, eq. 16), where next(t) is the next token with mask 1, however far; after a
    row's last one, V is `bootstrap_B` and A is 0. Returns (the value's targets) are A + V.

    Args:
        reward_BT: reward of each token; anything where the mask is 0.
        value_BT: V before each token; anything where the mask is 0.
        mask_BT: 1 on the policy's tokens.
        bootstrap_B: what is still to come after a row's last token: 0 for a response that ended, its value where it
            was cut.
        discount: γ, in [0, 1].
        gae_lambda: λ, in [0, 1]; 1 gives returns minus values, 0 one-step errors.

    Returns:
        float32 (float64 stays), 0 where the mask is 0; no gradient is meant to pass.
    """
    counts_BT = mask_BT.bool()
    next_value_B, next_advantage_B = bootstrap_B, torch.zeros_like(bootstrap_B)
    advantage_BT = torch.zeros_like(value_BT)
    for t in reversed(range(value_BT.shape[1])):
        here_B = counts_BT[:, t]
        delta_B = reward_BT[:, t] + discount * next_value_B - value_BT[:, t]
        advantage_B = delta_B + discount * gae_lambda * next_advantage_B
        advantage_BT[:, t] = torch.where(here_B, advantage_B, 0.0)
        next_advantage_B = torch.where(here_B, advantage_B, next_advantage_B)
        next_value_B = torch.where(here_B, value_BT[:, t], next_value_B)
    return advantage_BT
