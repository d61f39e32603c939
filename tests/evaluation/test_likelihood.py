from __future__ import annotations

import random

import pytest

from sanbai.evaluation.likelihood import token_logprobs
from sanbai.model.heads import LanguageModel
from tests.evaluation.slow import slow_logprobs


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_every_token_is_scored_as_in_a_loop_over_single_rows(model: LanguageModel, batch_tokens: int) -> None:
    rng = random.Random(0)
    rows = [[rng.randrange(model.config.vocab_size) for _ in range(length)] for length in (5, 1, 17, 0, 9, 2, 17)]
    scored = token_logprobs(model, rows, batch_tokens=batch_tokens)
    for row, logprobs in zip(rows, scored, strict=True):
        assert logprobs.tolist() == pytest.approx(slow_logprobs(model, row), abs=2e-5)
