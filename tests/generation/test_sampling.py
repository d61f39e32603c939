"""Draws against the distribution, truncation against a slow loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from sanbai.generation.engine import draw_uniforms
from sanbai.generation.sampling import Sampling, sample_tokens, truncate

LOGITS = torch.tensor([2.0, 1.0, 0.5, -0.5, -1.0, 0.9, -math.inf, -3.0])


def draw(sampling: Sampling, count: int) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    uniforms = torch.rand(count, generator=torch.Generator().manual_seed(7))
    drawn = sample_tokens(LOGITS.expand(count, -1), uniforms, sampling)
    return np.bincount(drawn.token_B.numpy(), minlength=8), drawn.logprob_B, drawn.sampled_logprob_B


def slow_truncated(probabilities: list[float], top_k: int, top_p: float) -> list[float]:
    """Top-k, then the smallest set of likeliest tokens that reaches top-p of what is left; ties with the last stay."""
    order = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])[:top_k]
    total, reached = sum(probabilities[token] for token in order), 0.0
    for token in order:
        last = probabilities[token]
        reached += last
        if reached >= top_p * total:
            break
    return [probability if probability >= last else 0.0 for probability in probabilities]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=2.0, top_p=0.8),
        Sampling(top_k=3),
        Sampling(top_k=5, top_p=0.7, temperature=1.5),
    ],
    ids=str,
)
def test_draws_follow_the_distribution(sampling: Sampling) -> None:
    count = 20_000
    found, _, _ = draw(sampling, count)
    weights = [math.exp(logit / sampling.temperature) for logit in LOGITS.tolist()]
    kept = slow_truncated([weight / sum(weights) for weight in weights], sampling.top_k, sampling.top_p)
    expected = np.array(kept) / sum(kept) * count
    assert (found[expected == 0] == 0).all()
    likely = expected > 0
    assert stats.chisquare(found[likely], expected[likely]).pvalue > 0.001


def test_logprobs_are_of_the_distribution_before_and_after_truncation() -> None:
    sampling = Sampling(temperature=1.5, top_p=0.8)
    uniforms = torch.rand(500, generator=torch.Generator().manual_seed(7))
    drawn = sample_tokens(LOGITS.expand(500, -1), uniforms, sampling)
    weights = [math.exp(logit / 1.5) for logit in LOGITS.tolist()]
    probabilities = [weight / sum(weights) for weight in weights]
    kept = slow_truncated(probabilities, 8, 0.8)
    for token, raw, sampled in zip(*(column.tolist() for column in drawn), strict=True):
        assert raw == pytest.approx(math.log(probabilities[token]), abs=1e-5)
        assert sampled == pytest.approx(math.log(kept[token] / sum(kept)), abs=1e-5)


def test_temperature_zero_takes_the_likeliest_and_leaves_nothing_to_chance() -> None:
    found, logprob, sampled = draw(Sampling(temperature=0.0), 50)
    assert found[0] == 50
    expected = LOGITS[0] - LOGITS.logsumexp(0)
    torch.testing.assert_close(logprob, expected.expand(50))
    assert (sampled == 0).all()


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    st.integers(1, 14),
    st.sampled_from([0.05, 0.3, 0.5, 0.77, 0.95, 1.0]),
)
def test_truncation_is_that_of_a_slow_loop(weights: list[int], top_k: int, top_p: float) -> None:
    probabilities = (torch.tensor(weights, dtype=torch.float64) / sum(weights)).tolist()
    kept = sorted(probabilities, reverse=True)[:top_k]
    reached = np.cumsum(kept) / sum(kept)
    assume(np.abs(reached[:-1] - top_p).min(initial=1.0) > 1e-9)  # reached exactly, the last bit would decide
    found = truncate(torch.tensor([probabilities], dtype=torch.float64), top_k=top_k, top_p=top_p)[0]
    assert found.tolist() == slow_truncated(probabilities, top_k, top_p)


def test_impossible_tokens_are_never_drawn_at_the_ends_of_the_unit_interval() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).expand(2, -1)
    uniforms = torch.tensor([0.0, 1 - 2**-24])
    assert sample_tokens(logits, uniforms, Sampling()).token_B.tolist() == [1, 3]


def test_uniform_numbers_depend_on_the_rows_seed_alone() -> None:
    together = draw_uniforms([3, 4, 5], 100)
    torch.testing.assert_close(together[1], draw_uniforms([4], 100)[0], rtol=0, atol=0)
    for count in (1, 7, 15, 16, 33):
        torch.testing.assert_close(together[1, :count], draw_uniforms([4], count)[0], rtol=0, atol=0)
    assert not torch.equal(together[0], together[1])
