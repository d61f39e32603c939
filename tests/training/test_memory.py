"""Memory by layout against the figures of ZeRO, of Korthikanti et al., and of served models."""

from __future__ import annotations

import pytest

from sanbai.model.presets import PRESETS
from sanbai.model.size import Shape, count_parameters, shape_of
from sanbai.training.memory import Layout, Sharding, activation_bytes, layouts, serving_memory, training_memory


def shape_with(*, layers: int, width: int, heads: int, experts: int = 1) -> Shape:
    return Shape(
        vocab_size=51_200, num_layers=layers, width=width, embedding_width=width, num_heads=heads, heads_width=width,
        kv_heads_width=width, feed_forward_width=4 * width, num_experts=experts, expert_period=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sharding", "gigabytes"), [("nothing", 120), ("optimizer", 31.4), ("gradients", 16.6), ("weights", 1.9)]
)
def test_sharded_states_are_those_of_figure_one_of_zero(sharding: Sharding, gigabytes: float) -> None:
    """7.5 billion parameters on 64 devices (Rajbhandari et al. 2019, arXiv:1910.02054, figure 1)."""
    shape = shape_with(layers=36, width=4096, heads=32)
    scale = 7.5e9 / count_parameters(shape).total
    memory = training_memory(shape, Layout(data=64, sharding=sharding), rows=1, length=1, recompute="all")
    assert (memory.total - memory.activations) * scale / 1e9 == pytest.approx(gigabytes, abs=0.05)


@pytest.mark.parametrize(
    ("layers", "width", "heads", "saved"), [(96, 12_288, 96, 0.70), (105, 20_480, 128, 0.65)], ids=["GPT-3", "MT-NLG"]
)
def test_recomputing_scores_saves_the_published_share_of_activations(
    layers: int, width: int, heads: int, saved: float
) -> None:
    """Korthikanti et al. 2022, arXiv:2205.05198, section 5: 70 % and 65 % of the activations at 2048 tokens."""
    shape = shape_with(layers=layers, width=width, heads=heads)
    everything = activation_bytes(shape, rows=1, length=2048, recompute="nothing")
    without = activation_bytes(shape, rows=1, length=2048, recompute="scores")
    assert everything / (2048 * width * layers) == pytest.approx(34 + 5 * heads * 2048 / width)
    assert 1 - without / everything == pytest.approx(saved, abs=0.01)


def test_tensor_and_pipeline_parallelism_divide_the_states_between_them() -> None:
    shape = shape_with(layers=96, width=12_288, heads=96)
    alone = training_memory(shape, Layout(), rows=1, length=2048, recompute="scores")
    divided = training_memory(shape, Layout(tensor=8, pipeline=8), rows=1, length=2048, recompute="scores")
    assert divided.weights == alone.weights / 64
    assert divided.optimizer == alone.optimizer / 64
    assert divided.activations == alone.activations / 8
    assert Layout(data=2, tensor=8, pipeline=8).num_devices == 128


def test_dividing_the_experts_leaves_the_dense_part_on_every_device() -> None:
    shape = shape_with(layers=4, width=256, heads=4, experts=64)
    parameters = count_parameters(shape)
    memory = training_memory(shape, Layout(data=16, experts=16), rows=1, length=128, recompute="all")
    assert memory.weights == 2 * (parameters.embeddings + parameters.dense) + 2 * parameters.experts / 16


@pytest.mark.parametrize("num_devices", [1, 2, 6, 8, 64, 1024])
def test_every_layout_uses_all_devices_and_none_is_named_twice(num_devices: int) -> None:
    found = layouts(num_devices, num_experts=128)
    assert {layout.num_devices for layout in found} == {num_devices}
    assert len({layout.name for layout in found}) == len(found)
    assert all(layout.data % layout.experts == 0 for layout in found)


def test_a_token_of_llama_2_7b_takes_half_a_mebibyte_of_cache_and_of_llama_3_8b_a_quarter_of_that() -> None:
    token = {
        name: serving_memory(shape_of(PRESETS[name]), sequences=1, length=1).cache
        for name in ("llama-2-7b", "llama-3-8b")
    }
    assert token == {"llama-2-7b": 2**19, "llama-3-8b": 2**17}


def test_half_precision_weights_of_llama_2_7b_are_the_size_of_its_files() -> None:
    memory = serving_memory(shape_of(PRESETS["llama-2-7b"]), sequences=1, length=1)
    assert memory.weights == pytest.approx(13.48e9, rel=0.001)


def test_an_encoders_text_is_cached_in_every_layer_of_the_decoder_too() -> None:
    base = shape_of(PRESETS["switch-base-8"])
    assert serving_memory(base, sequences=1, length=1).cache == 2 * 2 * 12 * 768 * 2
