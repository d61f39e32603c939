"""Attention as one function, softmax(q k' / sqrt(K) + mask) v, with four ways to compute the same numbers.

The mask may hold a bias of each head too, T5's relative positions; the root is left out where a model does without.

- `reference_attention`: the formula in three lines; tests compare the others to it.
- `BlockedAttention`, when gradients are needed on a CPU: torch's own backward is two and a half times slower there at
  the lengths we train (42 against 16 ms at T 256, B 16, 6 heads of 32, bfloat16, two Zen 4 cores). Queries go in a few
  blocks, each seeing only the keys up to its end, so that most of the upper triangle is never computed. Probabilities
  are kept for the backward pass: B H T S numbers a layer, which suits the short contexts trained on a CPU. Where the
  mask holds a bias to be learnt, torch's gradient takes three times as long (47 against 14 ms at B 8, one core).
- `single_query_attention`, decoding on a CPU: two batched products, twice torch's speed on a Zen 4 core. In bfloat16 on
  a matrix unit, where such products reorder the keys in every call, torch's function: half their time (64 rows, 6 heads
  of 64, 96 keys: 530 against 1,140 microseconds).
- torch's `scaled_dot_product_attention` everywhere else.

`attention_part` is for keys in several places: the average over some of them, with the weight it has among all.

Departure from the usual layout: neighbouring query heads that share a key head are folded into the rows of one matrix
product, so keys and values are never repeated.

Shapes: B rows, G key-value heads, R query heads a key-value head (H = G R query heads), T queries, S keys (the last T
of them belong to the queries), K head width, N = B G.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sanbai.foundation.device import has_matrix_tiles

BLOCK = 64
"""Queries a block; 64 and 128 were fastest at T 256, 32 was a fifth slower."""


def attention(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask_BHTS: Tensor, *, scaled: bool = True, causal: bool = True
) -> Tensor:
    """Return out_BHTK, each query's average of the values it may see.

    Args:
        q_BHTK: queries.
        k_BGSK: keys; G divides H.
        v_BGSK: values.
        mask_BHTS: `mask.additive_mask`, of the same dtype, and perhaps a bias; the first two axes may be 1.
        scaled: whether scores are divided by sqrt(K).
        causal: whether the mask hides the future, so that blocks may skip it without looking.
    """
    needs_gradient = torch.is_grad_enabled() and (q_BHTK.requires_grad or k_BGSK.requires_grad)
    on_cpu = q_BHTK.device.type == "cpu"
    if on_cpu and not needs_gradient and q_BHTK.shape[2] == 1:
        return single_query_attention(q_BHTK, k_BGSK, v_BGSK, mask_BHTS, scaled=scaled)
    if on_cpu and needs_gradient:
        out: Tensor = BlockedAttention.apply(q_BHTK, k_BGSK, v_BGSK, mask_BHTS, scaled, causal)  # type: ignore[no-untyped-call]
        return out
    grouped = q_BHTK.shape[1] != k_BGSK.shape[1]
    return F.scaled_dot_product_attention(
        q_BHTK, k_BGSK, v_BGSK, attn_mask=mask_BHTS, enable_gqa=grouped, scale=None if scaled else 1.0
    )


def reference_attention(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask_BHTS: Tensor, *, scaled: bool = True
) -> Tensor:
    """Return the same as `attention`, written as the formula."""
    repeats = q_BHTK.shape[1] // k_BGSK.shape[1]
    k_BHSK, v_BHSK = (x.repeat_interleave(repeats, dim=1) for x in (k_BGSK, v_BGSK))
    root = q_BHTK.shape[-1] ** 0.5 if scaled else 1.0
    score_BHTS = q_BHTK @ k_BHSK.transpose(-1, -2) / root + mask_BHTS
    out_BHTK: Tensor = score_BHTS.softmax(dim=-1) @ v_BHSK
    return out_BHTK


def single_query_attention(
    q_BH1K: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask_BH1S: Tensor, *, scaled: bool = True
) -> Tensor:
    """Return out_BH1K for one query a head; without gradient."""
    B, H, _, K = q_BH1K.shape
    G, S = k_BGSK.shape[1:3]
    q_BGRK = q_BH1K.reshape(B, G, -1, K)
    mask_BGRS = mask_BH1S.view(-1, G, H // G, S) if mask_BH1S.shape[1] > 1 else mask_BH1S
    if has_matrix_tiles(q_BH1K) and k_BGSK.stride(-1) == 1:
        mixed_BGRK = F.scaled_dot_product_attention(
            q_BGRK, k_BGSK, v_BGSK, attn_mask=mask_BGRS, scale=None if scaled else 1.0
        )
        return mixed_BGRK.reshape(B, H, 1, K)
    mask_NRS = mask_BGRS.expand(B, G, H // G, S).flatten(0, 1)
    q_NRK, k_NSK, v_NSK = q_BGRK.flatten(0, 1), k_BGSK.flatten(0, 1), v_BGSK.flatten(0, 1)
    score_NRS = torch.baddbmm(mask_NRS, q_NRK, k_NSK.transpose(1, 2), alpha=K**-0.5 if scaled else 1.0)
    return torch.bmm(score_NRS.softmax(dim=-1), v_NSK).view(B, H, 1, K)


def attention_part(
    q_NTK: Tensor, k_NSK: Tensor, v_NSK: Tensor, mask_N1S: Tensor, *, scaled: bool = True
) -> tuple[Tensor, Tensor]:
    """Attend to some of the keys; without gradient.

    Args:
        q_NTK: queries of N texts and heads.
        k_NSK: keys; each query may see one at least.
        v_NSK: values.
        mask_N1S: of the same dtype.
        scaled: whether scores are divided by sqrt(K).

    Returns:
        out_NTK, the average over these keys, and log sum exp of their scores, weight_NT1, by which averages over
        different keys are put together.
    """
    score_NTS = torch.baddbmm(mask_N1S, q_NTK, k_NSK.transpose(1, 2), alpha=q_NTK.shape[-1] ** -0.5 if scaled else 1.0)
    probability_NTS = score_NTS.softmax(dim=-1)
    exact = torch.promote_types(score_NTS.dtype, torch.float32)
    greatest_NT1, most_NT1 = (x.amax(dim=-1, keepdim=True).to(exact) for x in (score_NTS, probability_NTS))
    return torch.bmm(probability_NTS, v_NSK), greatest_NT1 - most_NT1.log()


class BlockedAttention(torch.autograd.Function):
    """Attention with its gradient written out; see the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BHTK: Tensor,
        k_BGSK: Tensor,
        v_BGSK: Tensor,
        mask_BHTS: Tensor,
        scaled: bool = True,
        causal: bool = True,
    ) -> Tensor:
        """Compute the output and keep each block's probabilities."""
        B, H, T, K = q_BHTK.shape
        G, S = k_BGSK.shape[1:3]
        N, R = B * G, H // G
        scale = K**-0.5 if scaled else 1.0
        q_NRTK = (q_BHTK * scale).reshape(N, R, T, K)
        k_NSK, v_NSK = k_BGSK.reshape(N, S, K), v_BGSK.reshape(N, S, K)
        out_NRTK = torch.empty_like(q_NRTK)
        blocks = [(start, min(start + BLOCK, T)) for start in range(0, T, BLOCK)]
        kept = []
        for start, end in blocks:
            seen = S - T + end if causal else S
            # A product copies operands that do not lie contiguous, each time; here once for both passes.
            q = q_NRTK[:, :, start:end].reshape(N, R * (end - start), K).contiguous()
            k, v = k_NSK[:, :seen].contiguous(), v_NSK[:, :seen].contiguous()
            score = torch.bmm(q, k.transpose(1, 2))
            score.view(B, H, end - start, seen).add_(mask_BHTS[:, :, start:end, :seen])
            probability = score.softmax(dim=-1)
            out_NRTK[:, :, start:end] = torch.bmm(probability, v).view(N, R, end - start, K)
            kept += [q, k, v, probability]
        ctx.blocks = blocks
        ctx.num_kv_heads, ctx.scale, ctx.mask_shape = G, scale, mask_BHTS.shape
        ctx.save_for_backward(*kept)
        return out_NRTK.view(B, H, T, K)

    @staticmethod
    def backward(ctx: Any, grad_BHTK: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None, None]:
        """With P the probabilities: dV = P' dO, dP = dO V', dS = P (dP - sum(P dP)), dQ = dS K, dK = dS' Q."""
        kept = ctx.saved_tensors
        B, H, T, K = grad_BHTK.shape
        N, R = B * ctx.num_kv_heads, H // ctx.num_kv_heads
        grad_NRTK = grad_BHTK.reshape(N, R, T, K)
        dq_NRTK = torch.empty_like(grad_NRTK)
        dk_NSK = dv_NSK = None
        d_mask_BHTS = grad_BHTK.new_zeros(ctx.mask_shape) if ctx.needs_input_grad[3] else None
        for index in reversed(range(len(ctx.blocks))):  # the last block sees every key, so its shares start the sums
            start, end = ctx.blocks[index]
            q, k, v, probability = kept[4 * index : 4 * index + 4]
            grad = grad_NRTK[:, :, start:end].reshape(N, R * (end - start), K).contiguous()
            d_probability = torch.bmm(grad, v.transpose(1, 2))
            d_score = torch._softmax_backward_data(d_probability, probability, -1, probability.dtype)  # noqa: SLF001
            if d_mask_BHTS is not None:
                place = d_mask_BHTS[:, :, start:end, : k.shape[1]]
                place.copy_(d_score.view(B, H, end - start, -1).sum_to_size(place.shape))
            dq_NRTK[:, :, start:end] = torch.bmm(d_score, k).view(N, R, end - start, K)
            dk, dv = torch.bmm(d_score.transpose(1, 2), q), torch.bmm(probability.transpose(1, 2), grad)
            if dk_NSK is None or dv_NSK is None:
                dk_NSK, dv_NSK = dk, dv
            else:
                dk_NSK[:, : k.shape[1]] += dk
                dv_NSK[:, : k.shape[1]] += dv
        assert dk_NSK is not None and dv_NSK is not None  # noqa: PT018 - there is at least one block
        grouped = (B, ctx.num_kv_heads, -1, K)
        return (
            (dq_NRTK * ctx.scale).view(B, H, T, K),
            dk_NSK.view(grouped),
            dv_NSK.view(grouped),
            d_mask_BHTS,
            None,
            None,
        )
