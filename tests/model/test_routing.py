"""Laws of routing: nobody is lost, nobody is read twice, first come first served, and the losses' fixed points."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import entropy
from transformers.models.switch_transformers.modeling_switch_transformers import (
    load_balancing_loss_func,
    router_z_loss_func,
)

from sanbai.model.routing import assign, load_balancing_loss, router_entropy, router_z_loss


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    num_groups=st.integers(1, 3),
    length=st.integers(1, 20),
    num_experts=st.integers(1, 6),
    top_k=st.integers(1, 2),
    factor=st.sampled_from([0.3, 1.0, 1.25, 2.0, math.inf]),
)
def test_kept_and_dropped_choices_are_all_choices_and_places_go_to_the_first(
    seed: int, num_groups: int, length: int, num_experts: int, top_k: int, factor: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    top_k = min(top_k, num_experts)
    N = num_groups * length
    expert_NK = torch.rand(N, num_experts, generator=generator).topk(top_k).indices
    real_N = torch.rand(N, generator=generator) < 0.8
    given_ = assign(expert_NK, real_N, num_experts=num_experts, num_groups=num_groups, capacity_factor=factor)

    taken: Counter[tuple[int, int]] = Counter()
    wanted: Counter[int] = Counter()
    expected: dict[int, list[int]] = {expert: [] for expert in range(num_experts)}
    for token in range(N):
        group = token // length
        num_real = sum(real_N[group * length : (group + 1) * length].tolist())
        for k, expert in enumerate(expert_NK[token].tolist()):
            if not real_N[token]:
                continue
            wanted[expert] += 1
            if taken[group, expert] < factor * top_k / num_experts * num_real:
                taken[group, expert] += 1
                expected[expert].append(token * top_k + k)
    assert given_.choice_A.tolist() == [choice for expert in range(num_experts) for choice in expected[expert]]
    assert given_.token_A.tolist() == [choice // top_k for choice in given_.choice_A.tolist()]
    assert given_.kept_E.tolist() == [len(expected[expert]) for expert in range(num_experts)]
    assert given_.wanted_E.tolist() == [wanted[expert] for expert in range(num_experts)]
    dropped = (given_.wanted_E - given_.kept_E).sum().item()
    assert len(given_.choice_A) + dropped == real_N.sum().item() * top_k


def test_the_balance_loss_is_one_for_even_routing_and_the_number_of_experts_for_a_collapsed_one() -> None:
    real = torch.ones(12, dtype=torch.bool)
    even = load_balancing_loss(torch.full((12, 4), 0.25), torch.tensor([3, 3, 3, 3]), real)
    collapsed = load_balancing_loss(torch.eye(4)[[2] * 12], torch.tensor([0, 0, 12, 0]), real)
    assert even.item() == pytest.approx(1.0, abs=1e-6)
    assert collapsed.item() == pytest.approx(4.0, abs=1e-6)


def test_both_losses_are_those_of_transformers() -> None:
    logits = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    probability, chosen = logits.softmax(-1), logits.argmax(-1)
    real = torch.ones(18, dtype=torch.bool)
    ours = load_balancing_loss(probability.flatten(0, 1), chosen.flatten().bincount(minlength=5), real)
    # theirs averages the products of each row's means; on one row that is the paper's
    theirs = load_balancing_loss_func(probability.view(1, 18, 5), chosen.view(1, 18, 1))
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(router_z_loss(logits.flatten(0, 1), real), router_z_loss_func(logits), rtol=1e-6, atol=0)


def test_entropy_and_z_loss_are_means_over_real_tokens_only() -> None:
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    real = torch.tensor([True, True, False, True, False, True, True])
    rows = logits[real].numpy()
    expected_z = float((logsumexp(rows, axis=1) ** 2).mean())
    expected_entropy = float(entropy(logits[real].softmax(-1).numpy(), axis=1).mean())
    assert router_z_loss(logits, real).item() == pytest.approx(expected_z, rel=1e-10)
    assert router_entropy(logits.softmax(-1), real).item() == pytest.approx(expected_entropy, rel=1e-10)


def test_where_no_token_counts_the_losses_are_zero_not_undefined() -> None:
    none, logits = torch.zeros(4, dtype=torch.bool), torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    wanted = torch.zeros(3, dtype=torch.long)
    assert load_balancing_loss(logits.softmax(-1), wanted, none).item() == 0
    assert router_z_loss(logits, none).item() == 0
    given_ = assign(logits.topk(1).indices, none, num_experts=3, num_groups=1, capacity_factor=1.0)
    assert given_.choice_A.numel() == 0
