"""Draws against the distribution that a slow loop gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tests.generation.plainly import slow_truncated

from sanbai.generation.drawing import SampledTokens, collect_rules, draw
from sanbai.generation.request import Shaping
from sanbai.generation.sampling import Sampling, draw_uniforms

LOGITS = torch.tensor([2.0, 1.0, 0.5, -0.5, -1.0, 0.9, -math.inf, -3.0])


def draw_rows(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> SampledTokens:
    rules = collect_rules([(sampling, Shaping())] * len(logits), logits.shape[1], torch.device("cpu"))
    return draw(logits, logits, uniforms, rules)


def draw_many(sampling: Sampling, count: int) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    uniforms = torch.rand(count, generator=torch.Generator().manual_seed(7))
    drawn = draw_rows(LOGITS.expand(count, -1), uniforms, sampling)
    return np.bincount(drawn.token_B.numpy(), minlength=8), drawn.logprob_B, drawn.sampled_logprob_B


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
    found, _, _ = draw_many(sampling, count)
    weights = [math.exp(logit / sampling.temperature) for logit in LOGITS.tolist()]
    kept = slow_truncated([weight / sum(weights) for weight in weights], sampling.top_k, sampling.top_p)
    expected = np.array(kept) / sum(kept) * count
    assert (found[expected == 0] == 0).all()
    likely = expected > 0
    assert stats.chisquare(found[likely], expected[likely]).pvalue > 0.001


def test_logprobs_are_of_the_distribution_before_and_after_truncation() -> None:
    sampling = Sampling(temperature=1.5, top_p=0.8)
    uniforms = torch.rand(500, generator=torch.Generator().manual_seed(7))
    drawn = draw_rows(LOGITS.expand(500, -1), uniforms, sampling)
    weights = [math.exp(logit / 1.5) for logit in LOGITS.tolist()]
    probabilities = [weight / sum(weights) for weight in weights]
    kept = slow_truncated(probabilities, 8, 0.8)
    for token, raw, sampled in zip(*(column.tolist() for column in drawn), strict=True):
        assert raw == pytest.approx(math.log(probabilities[token]), abs=1e-5)
        assert sampled == pytest.approx(math.log(kept[token] / sum(kept)), abs=1e-5)


def test_temperature_zero_takes_the_likeliest_and_leaves_nothing_to_chance() -> None:
    found, logprob, sampled = draw_many(Sampling(temperature=0.0), 50)
    assert found[0] == 50
    expected = LOGITS[0] - LOGITS.logsumexp(0)
    torch.testing.assert_close(logprob, expected.expand(50))
    assert (sampled == 0).all()


def test_impossible_tokens_are_never_drawn_at_the_ends_of_the_unit_interval() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).expand(2, -1)
    uniforms = torch.tensor([0.0, 1 - 2**-24])
    assert draw_rows(logits, uniforms, Sampling()).token_B.tolist() == [1, 3]


def test_uniform_numbers_depend_on_the_rows_seed_alone() -> None:
    together = draw_uniforms([3, 4, 5], 100)
    torch.testing.assert_close(together[1], draw_uniforms([4], 100)[0], rtol=0, atol=0)
    for count in (1, 7, 15, 16, 33):
        torch.testing.assert_close(together[1, :count], draw_uniforms([4], count)[0], rtol=0, atol=0)
    assert not torch.equal(together[0], together[1])
