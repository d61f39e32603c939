"""Norms against their formulas in plain Python numbers."""

from __future__ import annotations

import pytest
import torch

from sanbai.model.config import ModelConfig
from sanbai.model.norm import make_norm


def test_norms_are_their_formulas() -> None:
    x = [0.5, -2.0, 3.0, 0.25]
    config = ModelConfig(width=4, norm_epsilon=0.01)
    mean_square = sum(value * value for value in x) / 4
    expected = [value / (mean_square + 0.01) ** 0.5 for value in x]
    assert make_norm(config)(torch.tensor(x)).tolist() == pytest.approx(expected)

    mean = sum(x) / 4
    variance = sum((value - mean) ** 2 for value in x) / 4
    expected = [(value - mean) / (variance + 0.01) ** 0.5 for value in x]
    layer = make_norm(config.model_copy(update={"norm": "layer"}))
    assert layer(torch.tensor(x)).tolist() == pytest.approx(expected)


def test_the_norm_of_bfloat16_sums_in_float32() -> None:
    norm = make_norm(ModelConfig(width=512)).bfloat16()
    x = torch.randn(4, 512, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(norm(x).double(), exact, rtol=2**-7, atol=1e-3)
