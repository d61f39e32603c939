"""Oracles: logarithms and sums of plain Python floats; torch's gradient check; the plain loss for the chunked one."""

import math

import pytest
import torch

from sanbai.foundation import device
from sanbai.objectives.language import chunked_next_token_loss, entropy, next_token_loss, token_logprobs

LOGITS = [[[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]], [[3.0, 1.0, -2.0], [9.0, 9.0, 1.0]]]
TARGETS = [[2, 0], [1, 0]]
MASK = [[1, 1], [1, 0]]


def logprob(logits: list[float], target: int, temperature: float = 1.0) -> float:
    scaled = [x / temperature for x in logits]
    return scaled[target] - math.log(math.fsum(math.exp(x) for x in scaled))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
def test_token_logprobs_equal_plain_floats_at_any_temperature(temperature: float) -> None:
    found_BT = token_logprobs(torch.tensor(LOGITS), torch.tensor(TARGETS), temperature=temperature)
    for b in range(2):
        for t in range(2):
            assert found_BT[b, t].item() == pytest.approx(logprob(LOGITS[b][t], TARGETS[b][t], temperature), abs=1e-6)


def test_token_logprobs_are_reduced_in_float32_when_logits_are_bfloat16() -> None:
    logits_NV = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    found_N = token_logprobs(logits_NV, torch.tensor([1, 2, 3]))
    for n in range(3):
        assert found_N[n].item() == pytest.approx(logprob(logits_NV[n].float().tolist(), n + 1), abs=1e-5)


def test_entropy_equals_plain_floats() -> None:
    found_BT = entropy(torch.tensor(LOGITS), temperature=0.7)
    for b in range(2):
        for t in range(2):
            logprobs = [logprob(LOGITS[b][t], v, 0.7) for v in range(3)]
            assert found_BT[b, t].item() == pytest.approx(-math.fsum(math.exp(p) * p for p in logprobs), abs=1e-6)


def test_next_token_loss_is_the_mean_over_masked_tokens() -> None:
    expected = [-logprob(LOGITS[b][t], TARGETS[b][t]) for b in range(2) for t in range(2) if MASK[b][t]]
    found = next_token_loss(torch.tensor(LOGITS), torch.tensor(TARGETS), torch.tensor(MASK))
    assert found.item() == pytest.approx(sum(expected) / 3, abs=1e-6)


def test_what_the_mask_hides_does_not_reach_loss_or_gradient() -> None:
    logits_BTV = torch.tensor(LOGITS)
    logits_BTV[1, 1] = math.nan
    logits_BTV.requires_grad_()
    loss = next_token_loss(logits_BTV, torch.tensor(TARGETS), torch.tensor(MASK))
    assert math.isfinite(loss.item())


def test_rows_that_are_added_for_a_matrix_unit_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(6)
    hidden, head = torch.randn(70, 8, generator=generator), torch.randn(11, 8, generator=generator)
    target, weight = torch.randint(11, (70,), generator=generator), torch.rand(70, generator=generator)

    def loss_and_gradients() -> tuple[torch.Tensor, ...]:
        leaves = hidden.clone().requires_grad_(), head.clone().requires_grad_()
        loss = chunked_next_token_loss(*leaves, target, weight)
        return loss, *torch.autograd.grad(loss, leaves)

    plain = loss_and_gradients()
    monkeypatch.setattr(device, "has_matrix_tiles", lambda _: True)
    assert device.rows_to_fill(hidden) == 58
    torch.testing.assert_close(loss_and_gradients(), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_the_chunked_loss_and_its_gradients_equal_the_plain_ones(chunk: int) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden_ND = torch.randn(7, 5, dtype=torch.float64, generator=generator)
    head_VD = torch.randn(11, 5, dtype=torch.float64, generator=generator)
    target_N = torch.randint(11, (7,), generator=generator)
    weight_N = torch.rand(7, dtype=torch.float64, generator=generator)

    def gradients(*, chunked: bool) -> tuple[torch.Tensor, ...]:
        hidden, head = hidden_ND.clone().requires_grad_(), head_VD.clone().requires_grad_()
        if chunked:
            loss = chunked_next_token_loss(hidden, head, target_N, weight_N, chunk=chunk)
        else:
            loss = (torch.nn.functional.cross_entropy(hidden @ head.T, target_N, reduction="none") * weight_N).sum()
        (loss * 3).backward()
        assert hidden.grad is not None
        assert head.grad is not None
        return loss.detach(), hidden.grad, head.grad

    for found, expected in zip(gradients(chunked=True), gradients(chunked=False), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_chunked_loss_passes_the_gradient_check() -> None:
    generator = torch.Generator().manual_seed(2)
    hidden_ND = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    head_VD = torch.randn(6, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    weight_N = torch.tensor([0.1, 0.2, 0.0, 0.7], dtype=torch.float64)
    target_N = torch.tensor([5, 0, 1, 1])
    assert torch.autograd.gradcheck(
        lambda hidden, head: chunked_next_token_loss(hidden, head, target_N, weight_N, chunk=2), (hidden_ND, head_VD)
    )


def test_the_chunked_loss_of_a_frozen_head_passes_the_gradient_check() -> None:
    generator = torch.Generator().manual_seed(4)
    hidden_ND = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    head_VD = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    weight_N, target_N = torch.full((4,), 0.25, dtype=torch.float64), torch.tensor([5, 0, 1, 1])
    assert torch.autograd.gradcheck(
        lambda hidden: chunked_next_token_loss(hidden, head_VD, target_N, weight_N, chunk=3), (hidden_ND,)
    )
    chunked_next_token_loss(hidden_ND, head_VD, target_N, weight_N).backward()
    assert head_VD.grad is None


def test_the_chunked_loss_under_autocast_is_near_the_float32_one() -> None:
    generator = torch.Generator().manual_seed(3)
    hidden_ND = torch.randn(64, 16, generator=generator).requires_grad_()
    head_VD = (torch.randn(50, 16, generator=generator) * 0.1).requires_grad_()
    target_N = torch.randint(50, (64,), generator=generator)
    weight_N = torch.full((64,), 1 / 64)
    with torch.autocast("cpu", torch.bfloat16):
        low = chunked_next_token_loss(hidden_ND, head_VD, target_N, weight_N)
    high = chunked_next_token_loss(hidden_ND, head_VD, target_N, weight_N)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(high.item(), rel=5e-3)
