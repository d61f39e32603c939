"""A tiny model with random weights and a tokenizer trained on a few lines; nothing is faked."""

from __future__ import annotations

import pytest

from sanbai.foundation.seeds import torch_generator
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

LINES = [
    "Answer: the cow gave milk to the miller and to her son.",
    "Question: how many apples has the baker? Answer: 50 apples, not 5.",
    "The miller's daughter likes painting; so does her brother.",
    "水车在村子的东边。",
] * 10


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(LINES, vocab_size=320)


def tiny_model(vocab_size: int, *, name: str = "model", max_positions: int = 64) -> LanguageModel:
    """Return a model whose random weights are large enough that its predictions are far from uniform."""
    config = ModelConfig(
        vocab_size=vocab_size,
        num_layers=2,
        width=24,
        num_heads=2,
        num_kv_heads=1,
        head_width=12,
        feed_forward_width=40,
        max_positions=max_positions,
    )
    model = LanguageModel(config, torch_generator(0, name))
    for parameter in model.parameters():
        parameter.data.mul_(3.0)
    return model.eval()


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> LanguageModel:
    return tiny_model(tokenizer.vocab_size)


@pytest.fixture(scope="session")
def other_model(tokenizer: Tokenizer) -> LanguageModel:
    return tiny_model(tokenizer.vocab_size, name="other")
