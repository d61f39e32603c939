"""Adapters by their laws: what they leave alone, what they are equal to, what they refuse."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sanbai.foundation.errors import ModelError
from sanbai.foundation.seeds import torch_generator
from sanbai.model.adapters.adapter import Adapted, add_adapter, merge_adapter, remove_adapter
from sanbai.model.adapters.low_rank import drawing_from
from sanbai.model.adapters.peft_folder import load_adapter, save_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.config import ModelConfig
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_model, save_model
from sanbai.model.reading_heads import MaskedModel

LLAMA = ModelConfig(
    vocab_size=61, num_layers=3, width=24, num_heads=4, num_kv_heads=2, head_width=8, feed_forward_width=40,
    max_positions=32, initial_std=0.2,
)  # fmt: skip
_GPT = {"num_kv_heads": 4, "head_width": 6, "feed_forward": "gelu_tanh", "norm": "layer", "positions": "learned",
        "bias": True}  # fmt: skip
GPT2 = ModelConfig.model_validate({**LLAMA.model_dump(), **_GPT})
GPT_NEO = ModelConfig.model_validate(
    {**GPT2.model_dump(), "masks": ("causal", "banded"), "band_width": 4, "bias_places": ("out", "feed_forward"),
     "scaled_attention": False}
)  # fmt: skip
SHAPES = {"llama": LLAMA, "gpt2": GPT2, "gpt_neo": GPT_NEO}
METHODS = ("lora", "prompt", "p_tuning", "prefix")
P = 5


def make(config: ModelConfig = LLAMA) -> LanguageModel:
    return LanguageModel(config, torch_generator(0, "tests")).eval()


def adapt(model: LanguageModel, method: str, **options: object) -> Adapted:
    recipe = AdapterRecipe.model_validate({"method": method, "rank": 2, "num_virtual_tokens": P, **options})
    return add_adapter(model, recipe, torch_generator(0, "adapter"))


def shake(adapted: Adapted) -> None:
    generator = torch_generator(0, "shake")
    with torch.no_grad():
        for parameter in adapted.parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


def tokens(*shape: int) -> Tensor:
    return torch.randint(61, shape, generator=torch_generator(0, "tokens"))


def base_weights(model: LanguageModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_the_models_own_weights_keep_their_bits_when_the_adapter_learns(method: str, shape: str) -> None:
    model = make(SHAPES[shape])
    before = base_weights(model)
    adapted = adapt(model, method)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    start = {name: parameter.detach().clone() for name, parameter in adapted.parameters().items()}
    for _ in range(3):
        logits = model(tokens(2, 9))
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens(2, 9).flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = base_weights(model)
    for name, weight in before.items():
        assert torch.equal(weight, after[name]), name
    moved = {name for name, value in adapted.parameters().items() if not torch.equal(value, start[name])}
    assert moved == start.keys()
    assert start.keys() == after.keys() - before.keys()
    assert base_weights(remove_adapter(adapted)).keys() == before.keys()
    assert model.config == SHAPES[shape]


def test_fresh_lora_changes_no_bit_of_the_output() -> None:
    model = make()
    plain = model(tokens(2, 9))
    assert torch.equal(adapt(model, "lora").model(tokens(2, 9)), plain)


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_lora_is_a_model_whose_matrices_have_the_products_added(shape: str, stabilised: bool) -> None:
    everywhere = ("query", "key", "value", "out", "gate", "up", "down")
    adapted = adapt(make(SHAPES[shape]), "lora", alpha=3.0, rank_stabilised=stabilised, targets=everywhere)
    shake(adapted)
    scale = 3.0 / (2**0.5 if stabilised else 2)
    by_hand = make(SHAPES[shape])
    with torch.no_grad():
        for name, linear in adapted.linears():
            weight = by_hand.get_parameter(f"{name}.weight")
            for piece in linear.pieces:
                for row in range(piece.rows.length):
                    weight[piece.rows.start + row] += scale * (piece.b[row] @ piece.a)
    expected = by_hand(tokens(2, 9))
    torch.testing.assert_close(adapted.model(tokens(2, 9)), expected, rtol=1e-4, atol=1e-5)
    merged = merge_adapter(adapted)
    assert base_weights(merged).keys() == base_weights(by_hand).keys()
    for name, parameter in by_hand.named_parameters():
        torch.testing.assert_close(merged.get_parameter(name), parameter, rtol=1e-5, atol=1e-6)


def test_only_the_named_projections_are_adapted() -> None:
    def adapted_rows(config: ModelConfig, *targets: str) -> set[tuple[str, int, int]]:
        linears = adapt(make(config), "lora", targets=targets).linears()
        return {
            (name.removeprefix("trunk.blocks.0."), piece.rows.start, piece.rows.length)
            for name, linear in linears
            for piece in linear.pieces
            if ".0." in name
        }

    assert adapted_rows(LLAMA, "query", "value") == {("attention.qkv", 0, 32), ("attention.qkv", 48, 16)}
    assert adapted_rows(LLAMA, "key", "down") == {("attention.qkv", 32, 16), ("feed_forward.down", 0, 24)}
    assert adapted_rows(GPT2, "value") == {("attention.qkv", 0, 72)}, "one matrix of three is adapted whole"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_a_fresh_prompt_is_the_text_of_the_tokens_it_started_from(method: str, shape: str) -> None:
    model = make(SHAPES[shape])
    ids = torch.randint(61, (P,), generator=torch_generator(0, "adapter"))
    text = tokens(2, 9)
    expected = model(torch.cat((ids.expand(2, -1), text), dim=1))[:, P:]
    torch.testing.assert_close(adapt(model, method).model(text), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["prompt", "p_tuning", "prefix"])
def test_texts_packed_or_padded_each_have_the_prompt_before_them(method: str, shape: str) -> None:
    adapted = adapt(make(SHAPES[shape]), method)
    shake(adapted)
    model, first, second = adapted.model, tokens(1, 7), tokens(1, 11)[:, 4:]
    apart = [model(first), model(second)]

    packed = model(torch.cat((first, second), dim=1), segments_BT=torch.tensor([[1] * 7 + [2] * 7]))
    torch.testing.assert_close(packed, torch.cat(apart, dim=1), rtol=1e-4, atol=1e-5)

    for padded, real in (((3, 0), slice(3, None)), ((0, 3), slice(0, 7))):
        text = torch.nn.functional.pad(first, padded)
        segments = torch.nn.functional.pad(torch.ones_like(first), padded)
        torch.testing.assert_close(model(text, segments_BT=segments)[:, real], apart[0], rtol=1e-4, atol=1e-5)


def test_virtual_tokens_take_their_room_from_the_text_and_give_it_back() -> None:
    adapted = adapt(make(GPT2), "prompt")
    assert adapted.model.config.max_positions == 32 - P
    assert adapted.model(tokens(1, 32 - P)).shape == (1, 32 - P, 61)
    with pytest.raises(ModelError, match="28 positions given to a model of 27"):
        adapted.model(tokens(1, 28))
    assert remove_adapter(adapted).config == GPT2
    with pytest.raises(ModelError, match="num_virtual_tokens 32 leaves no room"):
        adapt(make(GPT2), "prompt", num_virtual_tokens=32)


def test_dropout_is_of_the_share_asked_for_and_drawn_from_the_generator_given() -> None:
    adapted = adapt(make(), "lora", dropout=0.3)
    shake(adapted)
    quiet = adapted.model(tokens(2, 9))
    adapted.model.train()

    def noisy(seed: int) -> Tensor:
        with drawing_from(torch.Generator().manual_seed(seed)):
            return adapted.model(tokens(2, 9))

    assert torch.equal(noisy(1), noisy(1))
    assert not torch.equal(noisy(1), noisy(2))
    assert torch.equal(adapted.model.eval()(tokens(2, 9)), quiet)

    _, linear = next(adapted.linears())
    linear.train()
    x, plain = torch.ones(20_000, 24), linear.base()(torch.ones(1, 24))
    with drawing_from(torch.Generator().manual_seed(0)), torch.no_grad():
        mean = (linear(x) - plain).mean(dim=0)
    linear.eval()
    torch.testing.assert_close(mean, (linear(x[:1]) - plain)[0].detach(), rtol=0.0, atol=0.12)  # five standard errors


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_comes_back_from_its_folder_in_the_same_bits(tmp_path: Path, method: str, shape: str) -> None:
    model = make(SHAPES[shape])
    plain = copy.deepcopy(model)
    adapted = adapt(model, method, alpha=2.5, rank_stabilised=True)
    shake(adapted)
    save_adapter(adapted, tmp_path)
    again = load_adapter(plain, tmp_path)
    with torch.no_grad():
        assert torch.equal(again.model(tokens(2, 9)), model(tokens(2, 9)))
    assert method != "lora" or again.recipe.scale == adapted.recipe.scale
    assert all(parameter.requires_grad for parameter in again.parameters().values())


def test_encoders_and_encoder_decoders_take_lora_and_refuse_prompts() -> None:
    reader = ModelConfig.model_validate({**GPT2.model_dump(), "masks": ("full",), "norm_place": "after",
        "embedding_norm": True, "num_token_types": 2, "feed_forward": "gelu"})  # fmt: skip
    both = ModelConfig.model_validate({**LLAMA.model_dump(), "num_kv_heads": 4, "positions": "relative",
        "encoder_layers": 2, "scaled_attention": False, "feed_forward": "relu", "scaled_head": True})  # fmt: skip
    for model in (MaskedModel(reader, torch_generator(0)), EncoderDecoder(both, torch_generator(0))):
        with pytest.raises(ModelError, match="virtual tokens need a model that reads from left to right"):
            adapt(model, "prompt")
        assert all(parameter.requires_grad for parameter in model.parameters()), "a refusal leaves the model as it was"
        adapted = adapt(model, "lora")
        assert {name.split(".")[-1] for name, _ in adapted.linears()} <= {"qkv", "query", "key_value"}
        assert len(list(adapted.linears())) == (3 if isinstance(model, MaskedModel) else 2 + 3 * 3)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match="no layer projects gate"):
        adapt(make(GPT2), "lora", targets=("gate",))
    adapted = adapt(make(), "prefix")
    with pytest.raises(ModelError, match="has an adapter already"):
        adapt(adapted.model, "lora")
    with pytest.raises(ModelError, match="method prefix cannot be merged"):
        merge_adapter(adapted)
    with pytest.raises(ModelError, match=r"adapter\.method is none"):
        adapt(make(), "none")
    with pytest.raises(ValueError, match="name a projection twice"):
        AdapterRecipe(targets=("query", "query"))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_an_adapter_is_not_saved_as_if_it_had_none(tmp_path: Path, method: str) -> None:
    adapted = adapt(make(), method)
    with pytest.raises(ModelError, match="merge the adapter, or save it on its own"):
        save_model(adapted.model, tmp_path)
    save_adapter(adapted, tmp_path)
    with pytest.raises(ModelError, match="holds an adapter alone"):
        load_model(tmp_path)


def test_a_folder_that_does_not_fit_is_refused_and_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    save_adapter(adapt(make(), "lora"), tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    model = make()
    before = base_weights(model)

    def refuses(match: str, **changes: object) -> None:
        (tmp_path / "adapter_config.json").write_text(json.dumps({**settings, **changes}))
        with pytest.raises(ModelError, match=match):
            load_adapter(model, tmp_path)
        assert base_weights(model).keys() == before.keys()
        assert all(parameter.requires_grad for parameter in model.parameters())

    refuses("peft_type is 'IA3', only LORA", peft_type="IA3")
    refuses("use_dora is True, only False", use_dora=True)
    refuses(r"modules_to_save is \['lm_head'\]", modules_to_save=["lm_head"])
    refuses(r"lora_A\.weight is \[2, 24\], the model wants \[3, 24\]", r=3)
    refuses("r: Input should be greater than or equal to 1; found 0", r=0)
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    other = make(ModelConfig.model_validate({**LLAMA.model_dump(), "num_layers": 2}))
    with pytest.raises(ModelError, match=r"has no place \(4 in all\); the adapter is of another model"):
        load_adapter(other, tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"damaged")
    refuses("not a whole safetensors file")
    (tmp_path / "adapter_model.safetensors").unlink()
    refuses(r"no adapter_model\.safetensors")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    refuses("a pickle, which can run code")
