"""Proximal policy optimisation: the two clipped losses, and the numbers that tell whether an update is healthy.

Shapes: B responses, T tokens. A batch may be computed in parts: every loss divides by `denominator`, the count of
    response tokens
of the *whole* minibatch, so that the parts' losses add up to the minibatch's, however it was cut.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanbai.objectives.kl import kl_estimate
from sanbai.objectives.masked import masked_mean, masked_sum, masked_variance


def clipped_policy_loss(
    logprob_BT: Tensor,
    old_logprob_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: float,
    denominator: Tensor | float,
    weight_BT: Tensor | None = None,
) -> Tensor:
    """Negative clipped surrogate, averaged over response tokens.

    Σ_t[ -w min(r A, clamp(r, 1 - clip, 1 + clip) A) ] / denominator,  r = exp(logprob - old_logprob)
    (Schulman et al. 2017, arXiv:1707.06347, eq. 7; with w, the decoupled objective of Hilton et al. 2021,
    arXiv:2110.00641, which AReaL uses for stale answers, arXiv:2505.24298.)

    Args:
        logprob_BT: log-probability in nats of each sampled token now; carries the gradient.
        old_logprob_BT: the same before the update, at the same temperature; no gradient.
        advantage_BT: no gradient; whiten before the call if wanted.
        mask_BT: 1 on response tokens, 0 on prompt and padding.
        clip: half-width of the trust interval, in (0, 1).
        denominator: response tokens of the whole minibatch.
        weight_BT: w of `importance_weights`, where the policy before the update is not the one that sampled; no
            gradient. None: it is, w = 1.

    Returns:
        A float32 scalar.
    """
    ratio_BT = _ratio(logprob_BT, old_logprob_BT, mask_BT)
    surrogate_BT = torch.min(ratio_BT * advantage_BT, ratio_BT.clamp(1 - clip, 1 + clip) * advantage_BT)
    if weight_BT is not None:
        surrogate_BT = weight_BT * surrogate_BT
    return -masked_sum(surrogate_BT, mask_BT) / denominator


def importance_weights(
    proximal_logprob_BT: Tensor, behaviour_logprob_BT: Tensor, mask_BT: Tensor, *, cap: float
) -> Tensor:
    """Return what a token of another policy's answers counts for: 1 where the policies agree, and off the mask.

    w = min(exp(proximal_logprob - behaviour_logprob), cap)

    Truncated importance sampling (Ionides 2008; Espeholt et al. 2018, arXiv:1802.01561): where `cap` does not bind, the
    mean of w f under the behaviour's draw of a token is the mean of f under the proximal policy's.

    Args:
        proximal_logprob_BT: of each sampled token, in nats, under the policy before the update, around which it clips.
        behaviour_logprob_BT: the same under the policy that sampled, by the same kernels.
        mask_BT: 1 on response tokens.
        cap: largest weight, 1 or more.
    """
    return _ratio(proximal_logprob_BT, behaviour_logprob_BT, mask_BT).clamp(max=cap)


def clipped_value_loss(
    value_BT: Tensor,
    old_value_BT: Tensor,
    return_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: float,
    denominator: Tensor | float,
) -> Tensor:
    """Half the squared error of the value, pessimistic about moving further than `clip` from the old one.

    Σ_t ½ max( (V - R)², (V_old + clamp(V - V_old, -clip, clip) - R)² ) / denominator
    (Not in the PPO paper; from its authors' code, openai/baselines ppo2.)

    Args:
        value_BT: V now; carries the gradient.
        old_value_BT: V when the response was scored.
        return_BT: the target, fixed when the response was scored.
        mask_BT: 1 on response tokens.
        clip: half-width in units of reward, above 0.
        denominator: response tokens of the whole minibatch.

    Returns:
        A float32 scalar; its gradient is 0 where the clipped error is the larger one.
    """
    clipped_BT = old_value_BT + (value_BT - old_value_BT).clamp(-clip, clip)
    error_BT = torch.max((value_BT - return_BT).square(), (clipped_BT - return_BT).square())
    return masked_sum(error_BT, mask_BT) / 2 / denominator


def clip_fraction(logprob_BT: Tensor, old_logprob_BT: Tensor, mask_BT: Tensor, *, clip: float) -> Tensor:
    """Share of response tokens whose ratio lies outside [1 - clip, 1 + clip]; 0 in an iteration's first minibatch."""
    ratio_BT = _ratio(logprob_BT, old_logprob_BT, mask_BT)
    return masked_mean(((ratio_BT - 1).abs() > clip).float(), mask_BT)


def approximate_kl(logprob_BT: Tensor, old_logprob_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """KL(old ‖ new) in nats a token by k3: how far the update has gone from the policy that sampled."""
    return masked_mean(kl_estimate(old_logprob_BT, logprob_BT, estimator="k3"), mask_BT)


def explained_variance(value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R): 1 for a perfect critic, 0 for one that says the mean, below 0 for a worse one.

    0 where the returns do not vary.
    """
    variance = masked_variance(return_BT, mask_BT)
    unexplained = masked_variance(return_BT - value_BT, mask_BT)
    return torch.where(variance > 0, 1 - unexplained / variance.clamp_min(1e-12), 0.0)


def _ratio(logprob_BT: Tensor, old_logprob_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """π / π_old where the mask is 1, else 1: a hidden token's infinity must not reach the gradient."""
    return torch.where(mask_BT.bool(), logprob_BT - old_logprob_BT, 0.0).exp()
