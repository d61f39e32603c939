"""Three estimates of KL(π ‖ ρ) from samples of π (Schulman 2020, joschu.net/blog/kl-approx.html).

With δ = log π(x) - log ρ(x) for x drawn from π, E_π of:

    k1 = δ                  unbiased, may be negative, noisy; the one that belongs into a reward
    k2 = δ² / 2             biased, never negative; as a *loss* its gradient is the KL's
    k3 = exp(-δ) - 1 + δ    unbiased, never negative, little noise; the one to watch

None of them is a KL when x came from a warped distribution (top-p, another temperature).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


def kl_estimate(logprob_BT: Tensor, reference_logprob_BT: Tensor, *, estimator: Estimator) -> Tensor:
    """Estimate KL(policy ‖ reference) in nats, one number a token.

    Args:
        logprob_BT: log π of each token, which π has drawn.
        reference_logprob_BT: log ρ of the same tokens, at the same temperature.
        estimator: see the module.
    """
    delta_BT = logprob_BT - reference_logprob_BT
    match estimator:
        case "k1":
            return delta_BT
        case "k2":
            return delta_BT.square() / 2
        case "k3":
            return torch.expm1(-delta_BT) + delta_BT
