"""Two small models, Llama's and GPT-2's ways, as tests of answers want them; and requests to them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from sanbai.generation.request import Request
from sanbai.generation.sampling import Sampling
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel

LLAMA = ModelConfig(
    vocab_size=61, num_layers=2, width=48, num_heads=4, num_kv_heads=2, head_width=16, feed_forward_width=80,
    max_positions=48,
)  # fmt: skip
GPT2 = ModelConfig(
    vocab_size=61, num_layers=2, width=48, num_heads=4, num_kv_heads=4, head_width=12, feed_forward_width=192,
    feed_forward="gelu_tanh", norm="layer", norm_epsilon=1e-5, positions="learned", max_positions=48, bias=True,
)  # fmt: skip
CONFIGS = pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
STOP = frozenset({3, 4})
GREEDY = Sampling(temperature=0.0, max_new_tokens=12)


def make_model(config: ModelConfig = LLAMA, seed: int = 1) -> LanguageModel:
    """Random weights large enough that distributions are far from uniform and stop tokens come at various times."""
    generator = torch.Generator().manual_seed(seed)
    model = LanguageModel(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def ask(prompt: Sequence[int], sampling: Sampling = GREEDY, **more: object) -> Request:
    return Request(**{"prompt": prompt, "sampling": sampling, "seeds": [1], **more})  # type: ignore[arg-type]
