"""Which expert reads which token: choice, capacity, and the losses that keep a router even; pure functions.

Switch Transformer's rules (Fedus et al. 2021, arXiv:2101.03961, section 2). Two departures. Places go to tokens in the
order of their positions also when each chooses several experts (GShard serves all first choices before any second), so
that no later token takes an earlier one's place and a causal model stays causal. And padding neither takes a place nor
counts towards the capacity, so that it changes no number of a real token.

Shapes: G groups that share a capacity, T tokens of each, N = G T tokens, K choices a token, E experts, A kept choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Assignment:
    """The choices that found a place, sorted by expert and within an expert by position."""

    choice_A: Tensor
    """Index of each among the N K choices, token by token."""
    token_A: Tensor
    """Index of its token."""
    kept_E: Tensor
    """How many each expert reads; they add up to A."""
    wanted_E: Tensor
    """How many chose each expert; what is above `kept_E` overflowed."""


def assign(
    expert_NK: Tensor, real_N: Tensor, *, num_experts: int, num_groups: int, capacity_factor: float
) -> Assignment:
    """Give each expert the first of the tokens that chose it, up to its capacity.

    capacity = ceil(capacity_factor * K * real tokens of the group / E), for each expert in each group (eq. 3).

    Args:
        expert_NK: the experts that each token chose, group after group.
        real_N: whether a token is no padding.
        num_experts: E.
        num_groups: G; divides N.
        capacity_factor: `math.inf` lets every choice in.
    """
    N, K = expert_NK.shape
    device = expert_NK.device
    real_A = real_N.repeat_interleave(K)
    choice_A = expert_NK.flatten().masked_fill(~real_A, num_experts).argsort(stable=True)[: real_A.sum()]
    expert_A = expert_NK.flatten()[choice_A]
    token_A = choice_A // K
    place_A = expert_A * num_groups + token_A // (N // num_groups)
    count_P = place_A.bincount(minlength=num_experts * num_groups)
    rank_A = torch.arange(len(place_A), device=device) - (count_P.cumsum(0) - count_P)[place_A]
    wanted_E = count_P.view(num_experts, num_groups).sum(dim=1)
    if capacity_factor == float("inf"):
        return Assignment(choice_A, token_A, kept_E=wanted_E, wanted_E=wanted_E)
    share = capacity_factor * K / num_experts
    capacity_G = (real_N.view(num_groups, -1).sum(dim=1, dtype=torch.float64) * share).ceil().long()
    kept_A = rank_A < capacity_G[place_A % num_groups]
    kept_EG = count_P.view(num_experts, num_groups).minimum(capacity_G)
    return Assignment(choice_A[kept_A], token_A[kept_A], kept_E=kept_EG.sum(dim=1), wanted_E=wanted_E)


def load_balancing_loss(probability_NE: Tensor, wanted_E: Tensor, real_N: Tensor) -> Tensor:
    """Return E sum_e f_e P_e: 1 where tokens and probabilities are spread evenly, E where one expert has all (eq. 4).

    f_e is the share of choices that fell on expert e, P_e its mean probability.

    Args:
        probability_NE: of the router; carries the gradient.
        wanted_E: how many choices fell on each expert, before the capacity; no gradient.
        real_N: 1 on tokens that count.

    Returns:
        A scalar; 0 where no token counts.
    """
    weight_N = real_N.to(probability_NE.dtype)
    mean_E = weight_N @ probability_NE / weight_N.sum().clamp(min=1)
    share_E = wanted_E / wanted_E.sum().clamp(min=1)
    loss: Tensor = (share_E.to(mean_E.dtype) * mean_E).sum() * len(wanted_E)
    return loss


def router_z_loss(logits_NE: Tensor, real_N: Tensor) -> Tensor:
    """Return the mean over real tokens of (log sum_e exp logits_e)^2 (Zoph et al. 2022, arXiv:2202.08906, eq. 5)."""
    weight_N = real_N.to(logits_NE.dtype)
    loss: Tensor = weight_N @ logits_NE.logsumexp(dim=-1).square() / weight_N.sum().clamp(min=1)
    return loss


def router_entropy(probability_NE: Tensor, real_N: Tensor) -> Tensor:
    """Return the mean over real tokens of the router's entropy in nats: log E undecided, 0 certain."""
    weight_N = real_N.to(probability_NE.dtype)
    entropy: Tensor = weight_N @ torch.special.entr(probability_NE).sum(dim=-1) / weight_N.sum().clamp(min=1)
    return entropy
