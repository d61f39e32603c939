"""Oracles: tables by hand, plain floats, torch's gradient check."""

import math

import pytest
import torch

from sanbai.objectives.ppo import (
    approximate_kl,
    clip_fraction,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    importance_weights,
)


def test_the_policy_loss_equals_plain_floats_over_ratios_and_signs() -> None:
    ratios, advantages = [0.5, 0.9, 1.0, 1.1, 2.0], [-2.0, 1.5]
    cells = [(ratio, advantage) for ratio in ratios for advantage in advantages]
    expected = -sum(min(r * a, max(0.8, min(1.2, r)) * a) for r, a in cells) / len(cells)
    found = clipped_policy_loss(
        torch.tensor([math.log(r) - 3 for r, _ in cells]),
        torch.full((10,), -3.0),
        torch.tensor([a for _, a in cells]),
        torch.ones(10),
        clip=0.2,
        denominator=10,
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.5, 1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, False), (1.1, 1.0, True), (0.9, -1.0, True)],
)
def test_a_token_beyond_the_trust_interval_stops_pulling_the_same_way(
    ratio: float, advantage: float, moves: bool
) -> None:
    logprob_N = torch.tensor([math.log(ratio)], requires_grad=True)
    loss = clipped_policy_loss(
        logprob_N, torch.zeros(1), torch.tensor([advantage]), torch.ones(1), clip=0.2, denominator=1
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert logprob_N.grad is not None
    assert logprob_N.grad.item() == pytest.approx(-ratio * advantage if moves else 0.0)


def test_trap_12_the_decoupled_loss_equals_a_slow_loop_over_three_policies() -> None:
    generator = torch.Generator().manual_seed(0)
    now, proximal, behaviour, advantage = (torch.randn(3, 4, generator=generator).double() for _ in range(4))
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0]])
    total = 0.0
    for row, column in mask.nonzero().tolist():
        new, old, then, gain = (each[row, column].item() for each in (now, proximal, behaviour, advantage))
        ratio, weight = math.exp(new - old), min(math.exp(old - then), 1.5)
        total -= weight * min(ratio * gain, min(max(ratio, 0.8), 1.2) * gain)
    weight = importance_weights(proximal, behaviour, mask, cap=1.5)
    found = clipped_policy_loss(now.double(), proximal, advantage, mask, clip=0.2, denominator=7, weight_BT=weight)
    assert found.item() == pytest.approx(total / 7, rel=1e-12)


def test_where_the_answering_policy_is_the_learning_one_the_decoupled_loss_is_the_plain_one_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    now, old, advantage = (torch.randn(8, 5, generator=generator) for _ in range(3))
    mask = (torch.arange(5) < torch.tensor([5, 1, 2, 5, 3, 1, 1, 4])[:, None]).float()
    weight = importance_weights(old, old.clone(), mask, cap=2.0)
    assert torch.equal(weight, torch.ones(8, 5))
    plain = clipped_policy_loss(now, old, advantage, mask, clip=0.2, denominator=22)
    found = clipped_policy_loss(now, old, advantage, mask, clip=0.2, denominator=22, weight_BT=weight)
    assert torch.equal(found, plain)


def test_weighted_means_under_the_policy_that_drew_are_means_under_the_one_that_learns() -> None:
    """Over all tokens of a vocabulary, nothing sampled; a cap that binds takes weight away."""
    generator = torch.Generator().manual_seed(0)
    proximal, behaviour = (torch.randn(9, generator=generator).double().log_softmax(0) for _ in range(2))
    what = torch.randn(9, generator=generator).double()
    weight = importance_weights(proximal, behaviour, torch.ones(9), cap=1e9)
    assert (behaviour.exp() * weight * what).sum().item() == pytest.approx((proximal.exp() * what).sum().item())
    capped = importance_weights(proximal, behaviour, torch.ones(9), cap=1.0)
    assert torch.equal(capped, weight.clamp(max=1.0))
    assert (behaviour.exp() * capped).sum() < 1


def test_what_a_mask_hides_weighs_one_whatever_it_is() -> None:
    hidden = torch.tensor([0.5, float("nan"), float("-inf")])
    found = importance_weights(hidden, torch.zeros(3), torch.tensor([1.0, 0.0, 0.0]), cap=9.0)
    assert found.tolist() == pytest.approx([math.exp(0.5), 1.0, 1.0])


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "gradient"),
    [
        (1.0, 0.9, 2.0, 0.5, -1.0),  # inside: the plain error
        (1.5, 1.0, 2.0, 0.32, 0.0),  # moved towards the target, too far: clipped error is larger, no pull
        (0.5, 1.0, 2.0, 1.125, -1.5),  # moved away, too far: the plain error is larger and pulls back
        (1.5, 1.0, 0.0, 1.125, 1.5),
        (0.5, 1.0, 0.0, 0.32, 0.0),
        (1.0, 1.0, 1.0, 0.0, 0.0),
    ],
)
def test_trap_17_value_clipping_is_pessimistic_around_the_old_value(
    value: float, old: float, target: float, loss: float, gradient: float
) -> None:
    value_N = torch.tensor([value], requires_grad=True)
    found = clipped_value_loss(
        value_N, torch.tensor([old]), torch.tensor([target]), torch.ones(1), clip=0.2, denominator=1
    )
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == pytest.approx(loss)
    assert value_N.grad is not None
    assert value_N.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_trap_15_parts_of_a_minibatch_add_up_to_its_gradient_however_it_is_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    old_BT, advantage_BT = torch.randn(8, 5, generator=generator), torch.randn(8, 5, generator=generator)
    mask_BT = (torch.arange(5) < torch.tensor([5, 1, 2, 5, 3, 1, 1, 4])[:, None]).float()

    def gradient(num_parts: int) -> torch.Tensor:
        logprob_BT = (old_BT + 0.1).requires_grad_()
        size = 8 // num_parts
        for start in range(0, 8, size):
            part = slice(start, start + size)
            for loss in (clipped_policy_loss, clipped_value_loss):
                loss(
                    logprob_BT[part], old_BT[part], advantage_BT[part], mask_BT[part], clip=0.2, denominator=22
                ).backward()  # type: ignore[no-untyped-call]
        assert logprob_BT.grad is not None
        return logprob_BT.grad

    for num_parts in (2, 4, 8):
        torch.testing.assert_close(gradient(num_parts), gradient(1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", [clipped_policy_loss, clipped_value_loss])
def test_both_losses_pass_the_gradient_check(loss: object) -> None:
    generator = torch.Generator().manual_seed(3)
    now_BT, old_BT, other_BT = (0.3 * torch.randn(3, 4, dtype=torch.float64, generator=generator) for _ in range(3))
    mask_BT = (torch.arange(4) < torch.tensor([4, 2, 1])[:, None]).double()
    assert callable(loss)
    assert torch.autograd.gradcheck(
        lambda now: loss(now, old_BT, other_BT, mask_BT, clip=0.2, denominator=7), (now_BT.requires_grad_(),)
    )


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_padding_garbage_reaches_neither_loss_nor_gradient(garbage: float) -> None:
    mask_BT = torch.tensor([[1.0, 1.0, 0.0]])
    logprob_BT = torch.tensor([[-1.0, -2.0, garbage]], requires_grad=True)
    loss = clipped_policy_loss(
        logprob_BT, torch.tensor([[-1.1, -2.0, 5.0]]), torch.tensor([[1.0, -1.0, garbage]]), mask_BT,
        clip=0.2, denominator=2,
    )  # fmt: skip
    loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(loss.item())
    assert logprob_BT.grad is not None
    assert logprob_BT.grad.isfinite().all()
    assert logprob_BT.grad[0, 2] == 0.0


def test_trap_14_metrics_count_response_tokens_only() -> None:
    old_BT, mask_BT = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    new_BT = torch.tensor([[math.log(1.5), 0.0, 0.0, 0.0]])
    assert clip_fraction(new_BT, old_BT, mask_BT, clip=0.2).item() == 0.5
    assert approximate_kl(new_BT, old_BT, mask_BT).item() == pytest.approx((0.5 - math.log(1.5)) / 2, rel=1e-5)
    for extra in (1, 60):
        longer = [torch.nn.functional.pad(x, (0, extra), value=value) for x, value in
                  ((new_BT, 9.0), (old_BT, 1.0), (mask_BT, 0.0))]  # fmt: skip
        assert clip_fraction(*longer, clip=0.2).item() == 0.5


def test_explained_variance_is_one_for_truth_zero_for_the_mean_and_negative_for_worse() -> None:
    return_BT, mask_BT = torch.tensor([[1.0, 2.0, 6.0, 99.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert explained_variance(return_BT, return_BT, mask_BT).item() == pytest.approx(1.0)
    assert explained_variance(torch.full((1, 4), 3.0), return_BT, mask_BT).item() == pytest.approx(0.0, abs=1e-6)
    assert explained_variance(-return_BT, return_BT, mask_BT).item() < 0
    assert explained_variance(return_BT, torch.ones(1, 4), mask_BT).item() == 0.0
