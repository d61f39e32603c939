"""Counts in closed form against models that were built, and against what papers print."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sanbai.model.heads import LanguageModel
from sanbai.model.presets import PRESETS
from sanbai.model.size import Shape, count_operations, count_parameters, shape_of
from sanbai.model.transformer import Transformer

GPT2 = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]


def t5_shape(
    layers: int, width: int, inner: int, heads: int, *, gated: bool, experts: int = 1, period: int = 1
) -> Shape:
    """T5 and Switch (Fedus et al. 2021, table 9): as many layers again in the encoder, heads of 64, 32128 tokens."""
    return Shape(
        vocab_size=32_128, num_layers=layers, encoder_layers=layers, width=width, embedding_width=width,
        num_heads=heads, heads_width=64 * heads, kv_heads_width=64 * heads, feed_forward_width=inner, gated=gated,
        num_experts=experts, expert_period=period, tied=False,
    )  # fmt: skip


def gpt3_shape() -> Shape:
    return Shape(
        vocab_size=50_257, num_layers=96, width=12_288, embedding_width=12_288, num_heads=96, heads_width=12_288,
        kv_heads_width=12_288, feed_forward_width=4 * 12_288, num_vectors=2048, bias=True, norm_vectors=2,
    )  # fmt: skip


@pytest.mark.parametrize("name", [*GPT2, "llama-2-7b", "llama-3-8b", "tiny"])
def test_parameters_are_those_of_the_model_that_is_built(name: str) -> None:
    with torch.device("meta"):
        model = LanguageModel(PRESETS[name])
    assert count_parameters(shape_of(PRESETS[name])).total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", list(PRESETS))
def test_parameters_of_every_preset_are_those_of_its_trunk_within_one_per_cent(name: str) -> None:
    config = PRESETS[name]
    with torch.device("meta"):
        trunks = [Transformer(config)] + ([Transformer(config.encoder())] if config.encoder_layers else [])
    built = sum(parameter.numel() for trunk in trunks for parameter in trunk.parameters())
    built -= config.vocab_size * config.embedding_size * (len(trunks) - 1)  # both read one table of embeddings
    built += 0 if config.tied_embeddings else config.vocab_size * config.width
    assert count_parameters(shape_of(config)).total == pytest.approx(built, rel=0.01)


@pytest.mark.parametrize(
    ("shape", "published"),
    [
        (gpt3_shape(), 174.6e9),
        (t5_shape(15, 2080, 6144, 32, gated=False, experts=2048), 1571e9),
        (t5_shape(24, 4096, 10_240, 64, gated=True, experts=128, period=2), 394.7e9),
        (t5_shape(24, 4096, 10_240, 64, gated=True), 11e9),
    ],
    ids=["GPT-3", "Switch-C", "Switch-XXL", "T5-XXL"],
)
def test_parameters_are_the_published_ones_within_two_per_cent(shape: Shape, published: float) -> None:
    assert count_parameters(shape).total == pytest.approx(published, rel=0.02)


def test_a_mixture_of_experts_uses_as_much_a_token_as_its_dense_equal_and_a_router() -> None:
    dense = count_parameters(t5_shape(24, 4096, 10_240, 64, gated=True))
    sparse = count_parameters(t5_shape(24, 4096, 10_240, 64, gated=True, experts=128, period=2))
    assert sparse.active == dense.total + 24 * 4096 * 128


@pytest.mark.parametrize(
    ("shape", "published"),
    [
        (t5_shape(12, 768, 3072, 12, gated=False), 124e9),
        (t5_shape(15, 2080, 6144, 32, gated=False, experts=2048), 890e9),
        (t5_shape(24, 4096, 10_240, 64, gated=True, experts=128, period=2), 6.3e12),
    ],
    ids=["T5-Base", "Switch-C", "Switch-XXL"],
)
def test_operations_a_sequence_of_the_switch_paper_are_met_within_ten_per_cent(shape: Shape, published: float) -> None:
    """512 tokens of source, 114 of target; the paper counts the layers' weights, without scores and router."""
    assert count_operations(shape, 114, source_length=512).layers == pytest.approx(published, rel=0.1)


@pytest.mark.parametrize(
    ("name", "parameters", "operations"), [("switch-c", 1571e9, 890e9), ("switch-xxl", 394.7e9, 6.3e12)]
)
def test_the_switch_presets_meet_their_papers_counts(name: str, parameters: float, operations: float) -> None:
    shape = shape_of(PRESETS[name])
    assert count_parameters(shape).total == pytest.approx(parameters, rel=0.01)
    assert count_operations(shape, 114, source_length=512).layers == pytest.approx(operations, rel=0.1)


@pytest.mark.parametrize("name", GPT2)
def test_training_gpt2_costs_six_operations_a_parameter_and_token_and_the_scores(name: str) -> None:
    shape = shape_of(PRESETS[name])
    operations = count_operations(shape, 1024)
    number = count_parameters(shape).total
    assert (operations.training - 3 * operations.scores) / 1024 == pytest.approx(6 * number, rel=0.01)


@pytest.mark.parametrize("name", ["gpt2", "tiny"])
def test_operations_are_those_that_torch_counts_in_a_forward_pass(name: str) -> None:
    config = PRESETS[name].model_copy(update={"num_layers": 2, "vocab_size": 1000})
    model = LanguageModel(config, torch.Generator().manual_seed(1))
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, 128, dtype=torch.long))
    assert counter.get_total_flops() == pytest.approx(count_operations(shape_of(config), 128).total, rel=1e-6)
