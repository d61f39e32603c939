"""The fast ways of attention against the formula, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sanbai.model.attention import BLOCK, BlockedAttention, attention, reference_attention
from sanbai.model.mask import additive_mask, positions_in_segments

LONG = 2 * BLOCK + 9


def inputs(B: int, H: int, G: int, T: int, S: int, K: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(B, H, T, K), (B, G, S, K), (B, G, S, K)]
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return q, k, v


def segments(B: int, S: int) -> Tensor:
    """Padding on the left of one row, three documents in another, one in the rest."""
    result = torch.ones(B, S, dtype=torch.int64)
    result[0, : S // 3] = 0
    if B > 1:
        result[1, S // 4 :] = 2
        result[1, S // 2 :] = 3
    return result


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)], ids=["one key head a query head", "grouped"])
@pytest.mark.parametrize(
    ("T", "S"), [(1, 1), (1, 70), (5, 5), (BLOCK, BLOCK), (2 * BLOCK + 9, 2 * BLOCK + 9), (70, 99)]
)
def test_every_path_is_the_formula(heads: tuple[int, int], T: int, S: int) -> None:
    q, k, v = inputs(3, *heads, T, S, 8)
    mask = additive_mask(segments(3, S), torch.float64)[:, :, S - T :]
    expected = reference_attention(q, k, v, mask)
    torch.testing.assert_close(attention(q, k, v, mask), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(BlockedAttention.apply(q, k, v, mask), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)], ids=["one key head a query head", "grouped"])
@pytest.mark.parametrize(("T", "S"), [(7, 7), (LONG, LONG), (70, 99)])
def test_gradients_are_those_of_the_formula(heads: tuple[int, int], T: int, S: int) -> None:
    mask = additive_mask(segments(2, S), torch.float64)[:, :, S - T :]
    leaves = [x.requires_grad_() for x in inputs(2, *heads, T, S, 8)]
    weights = torch.randn(2, heads[0], T, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = torch.autograd.grad((attention(*leaves, mask) * weights).sum(), leaves)
    expected = torch.autograd.grad((reference_attention(*leaves, mask) * weights).sum(), leaves)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_the_mask_is_causal_within_a_segment_and_never_empty() -> None:
    row = torch.tensor([[0, 0, 1, 1, 2, 0]])
    mask = additive_mask(row, torch.float32)[0, 0]
    for query in range(6):
        for key in range(6):
            sees = key <= query and row[0, key] == row[0, query]
            assert mask[query, key].item() == (0.0 if sees else -math.inf)


def test_positions_count_from_the_start_of_each_segment() -> None:
    row = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 0], [1, 1, 2, 3, 3, 3, 3, 3]])
    assert positions_in_segments(row).tolist() == [[0, 1, 0, 1, 2, 0, 1, 0], [0, 1, 0, 0, 1, 2, 3, 4]]


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("T", "S"), [(1, 70), (LONG, LONG), (70, 99)])
def test_every_path_is_the_formula_without_causality_with_a_bias_of_each_head(scaled: bool, T: int, S: int) -> None:
    mask = additive_mask(segments(2, S), torch.float64, kind="full")[:, :, S - T :]
    bias = torch.randn(1, 6, T, S, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for extra in (torch.zeros(1), bias, bias.clone().requires_grad_()):
        for needs_gradient in (False, True):
            leaves = [x.requires_grad_(needs_gradient) for x in inputs(2, 6, 2, T, S, 8)]
            found = attention(*leaves, mask + extra, scaled=scaled, causal=False)
            expected = reference_attention(*leaves, mask + extra, scaled=scaled)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
            if not needs_gradient:
                continue
            wanted = [*leaves, *([extra] if extra.requires_grad else [])]
            theirs = torch.autograd.grad(expected.square().sum(), wanted)
            for ours, gradient in zip(torch.autograd.grad(found.square().sum(), wanted), theirs, strict=True):
                torch.testing.assert_close(ours, gradient, rtol=0, atol=1e-10)


def test_a_bias_shared_by_all_rows_gets_the_sum_of_their_gradients() -> None:
    q, k, v = inputs(3, 4, 2, 70, 70, 8)
    bias = torch.randn(1, 4, 70, 70, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 4, 70, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    q.requires_grad_()
    for causal in (True, False):
        mask = bias + additive_mask(torch.ones(1, 70), torch.float64, kind="causal" if causal else "full")
        found = torch.autograd.grad((attention(q, k, v, mask, causal=causal) * weights).sum(), bias, retain_graph=True)
        expected = torch.autograd.grad((reference_attention(q, k, v, mask) * weights).sum(), bias)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
