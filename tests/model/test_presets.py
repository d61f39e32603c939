"""Presets against the numbers of parameters that papers and model cards print."""

from __future__ import annotations

import pytest
import torch

from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel
from sanbai.model.presets import PRESETS
from sanbai.model.reading_heads import NextSentenceModel
from sanbai.model.size import count_parameters, shape_of

#: In millions, as printed; where the paper's print is not its model (see `presets.py`), the released file's.
PUBLISHED = {
    "gpt1": 116.5,
    "gpt2": 124.44, "gpt2-medium": 354.82, "gpt2-large": 774.03, "gpt2-xl": 1557.61,
    "gpt3-125m": 125, "gpt3-350m": 356, "gpt3-760m": 760, "gpt3-1.3b": 1300, "gpt3-2.7b": 2700, "gpt3-6.7b": 6700,
    "gpt3-13b": 13_000, "gpt3-175b": 174_600,
    "llama-2-7b": 6738.42, "llama-2-13b": 13_015.86, "llama-2-70b": 68_976.65,
    "llama-3-8b": 8030.26, "llama-3-70b": 70_553.71, "llama-3.1-8b": 8030.26, "llama-3.1-405b": 405_853.39,
    "qwen2-0.5b": 494.03, "qwen2-1.5b": 1543.71, "qwen2-7b": 7615.62, "qwen3-0.6b": 596.05, "qwen3-8b": 8190.74,
    "mixtral-8x7b": 46_702.79,
    "bert-base": 110, "bert-large": 335, "ernie-3.0-base": 118,
    "albert-base": 12, "albert-large": 18, "albert-xlarge": 60, "albert-xxlarge": 223,
    "t5-small": 60.5, "t5-base": 223, "t5-large": 738, "t5-3b": 2851.6, "t5-11b": 11_307,
    "t5-1.1-small": 77, "t5-1.1-base": 248, "t5-1.1-large": 783, "t5-1.1-xl": 2850, "t5-1.1-xxl": 11_135,
    "mt5-small": 300, "mt5-base": 580, "mt5-large": 1230, "mt5-xl": 3740, "mt5-xxl": 12_900,
    "switch-base-8": 620, "switch-base-16": 1070, "switch-base-32": 1980, "switch-base-64": 3800,
    "switch-base-128": 7400, "switch-base-256": 14_700, "switch-large-128": 26_000, "switch-xxl": 395_000,
    "switch-c": 1_571_000,
}  # fmt: skip


def half_a_digit(printed: float) -> float:
    """Half a unit of the last digit that is not 0: how far a number may lie from its print."""
    unit = 1.0
    while printed % (unit * 10) == 0:
        unit *= 10
    return unit / 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_number_of_parameters(name: str) -> None:
    config = PRESETS[name]
    kind = EncoderDecoder if config.encoder_layers else NextSentenceModel if config.bidirectional else LanguageModel
    with torch.device("meta"):
        model = kind(config)
    found = sum(parameter.numel() for parameter in model.parameters())
    tolerance = max(0.01 * PUBLISHED[name], half_a_digit(PUBLISHED[name]))
    assert found / 1e6 == pytest.approx(PUBLISHED[name], abs=tolerance)
    pooler = (config.width + 1) * (config.width + 2) if kind is NextSentenceModel else 0
    assert count_parameters(shape_of(config)).total == pytest.approx(found - pooler, rel=0.002)


def test_every_preset_of_a_paper_is_counted() -> None:
    assert PRESETS.keys() - PUBLISHED.keys() == {"tiny", "small"}
