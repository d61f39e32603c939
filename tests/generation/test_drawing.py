"""Rows with rules of their own against each row alone, and against formulas by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.generation.plainly import slow_truncated

from sanbai.generation.drawing import bend, collect_rules, draw, top_logprobs, truncate_each
from sanbai.generation.request import Shaping
from sanbai.generation.sampling import Sampling

CPU = torch.device("cpu")
PLAIN = Shaping()


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_row_in_mixed_company_draws_what_it_draws_alone(seed: int) -> None:
    generator, dice = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    rules = [
        Sampling(
            temperature=float(dice.choice([0.0, 0.5, 1.0, 2.0])),
            top_k=int(dice.choice([1, 3, 11, 1_000_000])),
            top_p=float(dice.choice([0.2, 0.9, 1.0])),
        )
        for _ in range(6)
    ]
    logits = torch.randn((6, 11), generator=generator) * 3
    uniforms = torch.rand(6, generator=generator)
    together = draw(logits, logits, uniforms, collect_rules([(rule, PLAIN) for rule in rules], 11, CPU))
    for row, rule in enumerate(rules):
        own = logits[row : row + 1]
        alone = draw(own, own, uniforms[row : row + 1], collect_rules([(rule, PLAIN)], 11, CPU))
        assert together.token_B[row] == alone.token_B[0]
        torch.testing.assert_close(together.logprob_B[row], alone.logprob_B[0])
        torch.testing.assert_close(together.sampled_logprob_B[row], alone.sampled_logprob_B[0])


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=12), st.integers(1, 12), st.sampled_from([0.1, 0.5, 0.77, 1.0]))
def test_rows_are_truncated_as_each_would_be(weights: list[int], top_k: int, top_p: float) -> None:
    probability = (torch.tensor(weights, dtype=torch.float64) / sum(weights)).expand(2, -1)
    limit = min(top_k, len(weights))
    found = truncate_each(
        probability,
        top_k_A1=torch.tensor([[limit], [len(weights)]]),
        top_p_A1=torch.tensor([[top_p], [1.0]], dtype=torch.float64),
        min_p_A1=torch.zeros(2, 1, dtype=torch.float64),
    )
    total = sum(weights)
    reached = np.cumsum(sorted(weights, reverse=True)[:limit]) / sum(sorted(weights, reverse=True)[:limit])
    assume(np.abs(reached[:-1] - top_p).min(initial=1.0) > 1e-9)  # reached exactly, the last bit would decide
    assert found[0].tolist() == slow_truncated([weight / total for weight in weights], limit, top_p)
    assert torch.equal(found[1], probability[1])


def test_min_p_keeps_what_is_likely_beside_the_likeliest() -> None:
    probability = torch.tensor([[0.5, 0.26, 0.14, 0.1], [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    found = truncate_each(
        probability,
        top_k_A1=torch.full((2, 1), 4),
        top_p_A1=torch.ones(2, 1, dtype=torch.float64),
        min_p_A1=torch.tensor([[0.5], [0.25]], dtype=torch.float64),
    )
    assert found.tolist() == [[0.5, 0.26, 0.0, 0.0], [0.4, 0.3, 0.2, 0.1]]


def test_penalties_and_biases_are_the_formulas() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.5], [2.0, -2.0, 1.0, 0.5]])
    seen = torch.tensor([[True, True, False, False], [True, False, True, False]])
    count = torch.tensor([[3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    shapings = [
        Shaping(repetition_penalty=2.0, presence_penalty=0.25, frequency_penalty=0.5),
        Shaping(logit_bias={3: 1.5, 0: -1.0}),
    ]
    found = bend(logits, seen, count, shapings)
    assert found[0].tolist() == [2.0 / 2 - 0.25 - 3 * 0.5, -2.0 * 2, 1.0, 0.5]
    assert found[1].tolist() == [1.0, -2.0, 1.0, 2.0]
    assert logits[0].tolist() == [2.0, -2.0, 1.0, 0.5]


def test_logprobs_of_bent_rows_are_raw_and_sampled() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0]])
    shaped = torch.tensor([[-math.inf, 0.0, -1.0]])
    rules = collect_rules([(Sampling(temperature=2.0), PLAIN)], 3, CPU)
    drawn = draw(logits, shaped, torch.tensor([0.0]), rules)
    weights = [math.exp(value / 2) for value in (1.0, 0.0, -1.0)]
    assert drawn.token_B.tolist() == [1]
    assert drawn.logprob_B.item() == pytest.approx(math.log(weights[1] / sum(weights)), abs=1e-6)
    assert drawn.sampled_logprob_B.item() == pytest.approx(math.log(weights[1] / sum(weights[1:])), abs=1e-6)


def test_top_logprobs_are_the_likeliest_at_the_rows_temperature() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, 1.0]])
    found = top_logprobs(logits, torch.tensor([[0.5], [0.0]]), 2)
    weights = [[math.exp(value / heat) for value in row] for row, heat in zip(logits.tolist(), (0.5, 1.0), strict=True)]
    for row, (tops, each) in enumerate(zip(found, weights, strict=True)):
        assert [token for token, _ in tops] == [[1, 2], [0, 2]][row]
        for token, logprob in tops:
            assert logprob == pytest.approx(math.log(each[token] / sum(each)), abs=1e-5)
