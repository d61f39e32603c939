from __future__ import annotations

import math

import pytest
from tests.evaluation.slow import slow_distribution

from sanbai.evaluation.divergence import response_divergence
from sanbai.model.heads import LanguageModel

PROMPTS = [[1, 20, 30], [1, 9], [1, 40, 41, 42, 43]]
RESPONSES = [[7, 8], [11, 12, 13, 14], [15]]


def test_divergence_equals_a_sum_over_positions_and_vocabulary(
    model: LanguageModel, other_model: LanguageModel
) -> None:
    expected = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        nats = 0.0
        for t in range(len(response)):
            past = [*prompt, *response[:t]]
            p, q = slow_distribution(model, past), slow_distribution(other_model, past)
            nats += math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
        expected.append(nats)
    for batch_size in (1, 2, 8):
        estimate = response_divergence(model, other_model, PROMPTS, RESPONSES, batch_size=batch_size, seed=0)
        assert estimate.mean == pytest.approx(sum(expected) / 3, rel=1e-4)
        assert estimate.n == 3


def test_a_model_does_not_diverge_from_itself(model: LanguageModel) -> None:
    estimate = response_divergence(model, model, PROMPTS, RESPONSES, batch_size=8, seed=0)
    assert estimate.mean == pytest.approx(0.0, abs=1e-6)
