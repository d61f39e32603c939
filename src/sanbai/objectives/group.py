"""Advantages without a value model, from several answers to the same prompt, and how long answers weigh in the loss.

An answer is worth what it scores above the others to its prompt. With rewards r_1 ... r_K of a prompt:

    GRPO      A_i = (r_i - mean r) / (std r + ε)        Shao et al. 2024, arXiv:2402.03300, section 4.1.2
    Dr. GRPO  A_i = r_i - mean r                        Liu et al. 2025, arXiv:2503.20783
    RLOO      A_i = r_i - 1/(K-1) Σ_{j≠i} r_j           Ahmadian et al. 2024, arXiv:2402.14740

All tokens of an answer share its advantage. Where a response's tokens are summed up, RLOO's gives the gradient of the
expected reward itself, and Dr. GRPO's (K-1)/K of it, since an answer's own reward is in the mean. GRPO's does neither:
dividing by the deviation gives prompts whose answers differ little more weight, and dividing each answer's loss by its
length pushes a long one less for the same reward.

Shapes: P prompts, K answers a prompt, N = P·K responses in the order of the prompts, R response tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sanbai.objectives.masked import masked_sum

#: Which of the three formulas of the module's docstring.
Advantage = Literal["grpo", "dr_grpo", "rloo"]
#: What the loss of a response's tokens is divided by: see `response_weights`.
Normalization = Literal["response", "token", "constant", "sum"]


def group_advantages(reward_PK: Tensor, *, kind: Advantage, epsilon: float = 1e-4) -> Tensor:
    """Return advantage_PK; 0 for a prompt whose answers all have one reward.

    The deviation is over the whole group, with denominator K, so that GRPO's advantages stay within √(K-1): a deviation
    of the other answers alone would be 0 wherever a single answer differs.

    Args:
        reward_PK: penalties, and the KL if it is priced there, already taken off; K at least 2. No gradient.
        kind: the formula.
        epsilon: in units of reward, added to GRPO's deviation: differences far below it are no signal.

    Returns:
        reward's dtype.
    """
    exact_PK = reward_PK.double()  # the mean of equal float32 numbers is then that number, to the bit
    centred_PK = exact_PK - exact_PK.mean(1, keepdim=True)
    num_answers = reward_PK.shape[1]
    match kind:
        case "grpo":
            advantage_PK = centred_PK / (exact_PK.std(1, correction=0, keepdim=True) + epsilon)
        case "dr_grpo":
            advantage_PK = centred_PK
        case "rloo":  # r_i - (Σ r - r_i) / (K-1) = K/(K-1) · (r_i - mean r)
            advantage_PK = centred_PK * num_answers / (num_answers - 1)
    return advantage_PK.to(reward_PK.dtype)


def response_weights(length_N: Tensor, *, normalization: Normalization, longest: int) -> Tensor:
    """Return weight_N, what each token of a response counts in the loss of these N responses.

        response  1 / (N · length_n)     the mean over responses of their tokens' mean: GRPO's
        token     1 / Σ_n length_n       the mean over all tokens: DAPO's (Yu et al. 2025, arXiv:2503.14476)
        constant  1 / (N · longest)      a sum over tokens, scaled alike for all: Dr. GRPO's
        sum       1 / N                  the mean over responses of their tokens' sum: RLOO's

    The last two keep the policy gradient's direction. The first makes an answer's push on a token smaller the longer it
    is, and the second every answer's in a batch with long ones.

    Args:
        length_N: tokens of each response of the minibatch, at least 1.
        normalization: which.
        longest: tokens of the longest answer allowed, for `constant`.
    """
    match normalization:
        case "response":
            return 1 / (len(length_N) * length_N.float())
        case "token":
            return (1 / length_N.sum().float()).expand(len(length_N))
        case "constant":
            return torch.full_like(length_N, 1 / (len(length_N) * longest), dtype=torch.float32)
        case "sum":
            return torch.full_like(length_N, 1 / len(length_N), dtype=torch.float32)


def reinforce_loss(logprob_NR: Tensor, advantage_NR: Tensor, mask_NR: Tensor) -> Tensor:
    """REINFORCE over whole answers: -Σ_n A_n · log π(y_n | x_n), the answer's weight in A (Williams 1992).

    There is no ratio and no trust interval: exact for the policy that sampled, an approximation after its first step.

    Args:
        logprob_NR: log-probability in nats of each response token now; carries the gradient.
        advantage_NR: each token's, which is its answer's; no gradient.
        mask_NR: 1 on response tokens.

    Returns:
        A float32 scalar, whose gradient alone has a meaning.
    """
    return -masked_sum(logprob_NR * advantage_NR, mask_NR)
