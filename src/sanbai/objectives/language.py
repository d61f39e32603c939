"""Predicting the next token: log-probabilities, entropy, cross-entropy, and cross-entropy without the logits' memory.

Shapes: B sequences, T positions, N tokens, D width, V vocabulary. Targets are already shifted: `target_BT[b, t]` is
    the token
that comes after position t.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sanbai.foundation.device import rows_to_fill
from sanbai.objectives.masked import masked_sum


def token_logprobs(logits_NV: Tensor, target_N: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-probability in nats of each target under softmax(logits / temperature).

    A policy that samples at a temperature is the distribution at that temperature: rollouts, reference and update all
    name it.

    Args:
        logits_NV: any leading shape before V; reduced in float32 (float64 stays).
        target_N: ids, the same leading shape.
        temperature: above 0.
    """
    scaled_NV = _reducible(logits_NV)
    if temperature != 1.0:  # a pass over all logits and one over their gradient, which would change no bit at 1
        scaled_NV = scaled_NV / temperature
    surprise_N = F.cross_entropy(scaled_NV.flatten(0, -2), target_N.flatten(), reduction="none")
    return -surprise_N.view(target_N.shape)


def entropy(logits_NV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of softmax(logits / temperature): -Σ_v p log p, one number a position."""
    logprob_NV = F.log_softmax(_reducible(logits_NV) / temperature, dim=-1)
    return -(logprob_NV.exp() * logprob_NV).sum(-1)


def next_token_loss(logits_BTV: Tensor, target_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean negative log-probability, in nats, of the targets where the mask is 1.

    Σ_bt m_bt · (-log p(target_bt)) / Σ_bt m_bt

    Args:
        logits_BTV: carries the gradient.
        target_BT: the token after each position.
        mask_BT: 1 where the target is to be learned; at least one 1.

    Returns:
        A float32 scalar.
    """
    return masked_sum(-token_logprobs(logits_BTV, target_BT), mask_BT) / mask_BT.sum()


def categorical_loss(logits_NC: Tensor, target_N: Tensor, *, denominator: float) -> Tensor:
    """Σ_n -log p(target_n) / denominator, in nats: of masked tokens, of written tokens, of classes.

    With N as denominator it is their mean; a part of a batch is divided by the whole batch's number, so that parts
    add up.

    Args:
        logits_NC: carries the gradient; reduced in float32 (float64 stays).
        target_N: ids or classes, in [0, C); N may be 0.
        denominator: above 0.

    Returns:
        A scalar, float32 at least.
    """
    return -token_logprobs(logits_NC, target_N).sum() / denominator


def chunked_next_token_loss(
    hidden_ND: Tensor, head_VD: Tensor, target_N: Tensor, weight_N: Tensor, *, chunk: int = 1024
) -> Tensor:
    """Σ_n w_n · (-log p(target_n)) for logits = hidden · headᵀ, never holding more than `chunk` rows of logits.

    With w = mask / Σ mask this is `next_token_loss` of the whole model's head. The gradients are computed beside the
    loss, since the logits are there then. As fast as the plain form at vocabularies of some thousands, where logits fit
    in memory; beyond that it is what makes the head fit. Products run in the autocast precision, sums over the
    vocabulary and over chunks in float32.

    Args:
        hidden_ND: the trunk's output at the positions to be learned; carries the gradient.
        head_VD: the head's (or the tied embedding's) weight; carries the gradient, if it learns.
        target_N: the token after each position.
        weight_N: the share of each position in the loss; no gradient.
        chunk: rows of logits at a time.

    Returns:
        A float32 scalar; differentiable once.
    """
    if more := rows_to_fill(hidden_ND):
        hidden_ND = F.pad(hidden_ND, (0, 0, 0, more))
        target_N, weight_N = F.pad(target_N, (0, more)), F.pad(weight_N, (0, more))
    loss: Tensor = _ChunkedLoss.apply(hidden_ND, head_VD, target_N, weight_N, chunk)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedLoss(torch.autograd.Function):
    """Loss and both gradients, chunk by chunk.

    d loss / d logits_nv = w_n · (p_nv - [v = target_n]); the products with head and hidden follow at once.
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, target_N: Tensor, weight_N: Tensor, chunk: int) -> Tensor:
        kind = hidden_ND.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_ND.dtype
        sums = torch.float64 if dtype == torch.float64 else torch.float32
        head = head_VD.to(dtype)
        loss = torch.zeros((), dtype=sums, device=hidden_ND.device)
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_head_VD = torch.zeros_like(head_VD, dtype=sums) if ctx.needs_input_grad[1] else None
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(hidden_ND), chunk):
                part = slice(start, start + chunk)
                hidden, target, weight = hidden_ND[part].to(dtype), target_N[part, None], weight_N[part, None].to(sums)
                logprob = torch.log_softmax((hidden @ head.T).to(sums), dim=-1)
                loss -= (weight * logprob.gather(-1, target)).sum()
                error = logprob.exp_().scatter_add_(-1, target, -torch.ones_like(weight)).to(dtype)  # p - [v = target]
                grad_hidden_ND[part] = ((error @ head) * weight).to(hidden_ND.dtype)
                if grad_head_VD is not None:
                    grad_head_VD += error.T @ (hidden * weight).to(dtype)
        ctx.save_for_backward(grad_hidden_ND, None if grad_head_VD is None else grad_head_VD.to(head_VD.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        grad_hidden_ND, grad_head_VD = ctx.saved_tensors
        return grad_hidden_ND * upstream, None if grad_head_VD is None else grad_head_VD * upstream, None, None, None


def _reducible(logits: Tensor) -> Tensor:
    """Sums over a vocabulary lose their tail in bf16; float64 (gradient checks) stays."""
    return logits if logits.dtype == torch.float64 else logits.float()
