"""Oracle: the exact KL of two categorical distributions of 50 tokens, by a sum in plain floats."""

import math

import pytest
import torch

from sanbai.objectives.kl import Estimator, kl_estimate


def distributions() -> tuple[torch.Tensor, torch.Tensor, float]:
    generator = torch.Generator().manual_seed(5)
    policy_V = torch.log_softmax(torch.randn(50, dtype=torch.float64, generator=generator), -1)
    reference_V = torch.log_softmax(policy_V + 0.7 * torch.randn(50, dtype=torch.float64, generator=generator), -1)
    exact = math.fsum(math.exp(p) * (p - q) for p, q in zip(policy_V.tolist(), reference_V.tolist(), strict=True))
    return policy_V, reference_V, exact


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_trap_08_k1_and_k3_are_unbiased(estimator: Estimator) -> None:
    policy_V, reference_V, exact = distributions()
    expectation = (policy_V.exp() * kl_estimate(policy_V, reference_V, estimator=estimator)).sum()
    assert expectation.item() == pytest.approx(exact, rel=1e-12)


def test_trap_08_k2_has_its_known_bias() -> None:
    policy_V, reference_V, exact = distributions()
    expectation = (policy_V.exp() * kl_estimate(policy_V, reference_V, estimator="k2")).sum().item()
    expected = math.fsum(
        math.exp(p) * (p - q) ** 2 / 2 for p, q in zip(policy_V.tolist(), reference_V.tolist(), strict=True)
    )
    assert expectation == pytest.approx(expected, rel=1e-12)
    assert expectation != pytest.approx(exact, rel=1e-2)


def test_trap_08_k3_varies_less_than_k1_and_is_never_negative() -> None:
    policy_V, reference_V, _ = distributions()
    k1_V, k3_V = (kl_estimate(policy_V, reference_V, estimator=name) for name in ("k1", "k3"))

    def variance(value_V: torch.Tensor) -> float:
        mean = (policy_V.exp() * value_V).sum()
        return float((policy_V.exp() * (value_V - mean).square()).sum())

    assert variance(k3_V) < variance(k1_V) / 2
    assert k1_V.min() < 0 <= k3_V.min()


def test_trap_08_as_a_loss_only_k2_has_the_gradient_of_the_kl() -> None:
    policy_V, reference_V, _ = distributions()

    def gradient(estimator: Estimator | None) -> torch.Tensor:
        logits_V = policy_V.clone().requires_grad_()
        logprob_V = torch.log_softmax(logits_V, -1)
        if estimator is None:
            loss = (logprob_V.exp() * (logprob_V - reference_V)).sum()
        else:  # the expectation over samples, which carry no gradient
            loss = (policy_V.exp() * kl_estimate(logprob_V, reference_V, estimator=estimator)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        assert logits_V.grad is not None
        return logits_V.grad

    torch.testing.assert_close(gradient("k2"), gradient(None), rtol=1e-9, atol=1e-12)
    assert gradient("k1").abs().max() < 1e-12
    assert (gradient("k3") - gradient(None)).abs().max() > 1e-3


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_equal_distributions_have_no_kl(estimator: Estimator) -> None:
    logprob_BT = -torch.rand(3, 4)
    assert kl_estimate(logprob_BT, logprob_BT.clone(), estimator=estimator).abs().max() == 0.0
