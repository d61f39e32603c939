"""The folders we write are those of transformers, which is the oracle here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sanbai.foundation.errors import ModelError
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import load_language_model, load_model, load_scalar_model, save_model

transformers = pytest.importorskip("transformers")

LLAMA = ModelConfig(
    vocab_size=97, num_layers=2, width=48, num_heads=4, num_kv_heads=2, head_width=16, feed_forward_width=80,
    max_positions=64,
)  # fmt: skip
LLAMA_UNTIED = LLAMA.model_copy(update={"tied_embeddings": False, "bias": True, "rope_theta": 500.0})
GPT2 = ModelConfig(
    vocab_size=97, num_layers=2, width=48, num_heads=4, num_kv_heads=4, head_width=12, feed_forward_width=192,
    feed_forward="gelu_tanh", norm="layer", norm_epsilon=1e-5, positions="learned", max_positions=64, bias=True,
)  # fmt: skip
CONFIGS = pytest.mark.parametrize("config", [LLAMA, LLAMA_UNTIED, GPT2], ids=["llama", "llama untied bias", "gpt2"])


def make_model(config: ModelConfig) -> LanguageModel:
    """A model whose every parameter is random, so that a forgotten bias or norm shows."""
    generator = torch.Generator().manual_seed(1)
    model = LanguageModel(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def ragged_batch(side: str) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, real positions (1) or padding (0), and positions, of rows of 9, 5 and 1 tokens."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(1, 97, (3, 9), generator=generator)
    real = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] + [0] * 8])
    if side == "left":
        real = real.flip(1)
    return tokens * real, real, (real.cumsum(1) - 1).clamp(min=0)


@CONFIGS
@pytest.mark.parametrize("side", ["left", "right"])
def test_transformers_loads_the_folder_and_gives_the_same_logits_and_gradients(
    config: ModelConfig, side: str, tmp_path: Path
) -> None:
    model = make_model(config)
    save_model(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens, real, positions = ragged_batch(side)
    expected = theirs(tokens, attention_mask=real, position_ids=positions).logits[real.bool()]
    found = model(tokens, segments_BT=real)[real.bool()]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    save_gradients = LanguageModel(config)
    save_gradients.load_state_dict({name: parameter.grad for name, parameter in model.named_parameters()})
    folder = tmp_path / "gradients"
    folder.mkdir()
    save_model(save_gradients, folder)
    ours = load_file(folder / "model.safetensors")
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(
            ours[name], parameter.grad, rtol=1e-4, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


@CONFIGS
def test_a_folder_made_by_transformers_loads_and_comes_back_unchanged(config: ModelConfig, tmp_path: Path) -> None:
    save_model(make_model(config), tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(1.5)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    theirs.save_pretrained(tmp_path / "theirs")
    model = load_language_model(tmp_path / "theirs")
    assert model.config == config
    tokens = torch.randint(0, 97, (2, 20), generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)
    save_model(model, tmp_path / "ours")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@CONFIGS
def test_a_sharded_folder_loads(config: ModelConfig, tmp_path: Path) -> None:
    model = make_model(config)
    save_model(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    (tmp_path / "shards").mkdir()
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    loaded = load_language_model(tmp_path / "shards")
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_transformers_gives_the_same_reward_but_for_the_bias(config: ModelConfig, tmp_path: Path) -> None:
    model = ScalarModel.from_language_model(make_model(config), torch.Generator().manual_seed(5))
    with torch.no_grad():
        model.head.bias.fill_(-3.25)
    save_model(model, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokens, real, positions = ragged_batch("right")
    ours = model(tokens, segments_BT=real).gather(1, real.sum(1, keepdim=True) - 1)
    expected = theirs(tokens, attention_mask=real, position_ids=positions).logits
    torch.testing.assert_close(ours + 3.25, expected, rtol=1e-4, atol=1e-4)
    again = load_scalar_model(tmp_path)
    assert again.head.bias.item() == -3.25
    torch.testing.assert_close(again(tokens, segments_BT=real), model(tokens, segments_BT=real), rtol=0, atol=0)


def test_a_configuration_of_no_stock_architecture_is_refused(tmp_path: Path) -> None:
    mixed = LLAMA.model_copy(update={"positions": "learned"})
    with pytest.raises(ModelError, match="no stock architecture"):
        save_model(LanguageModel(mixed), tmp_path)
    assert not list(tmp_path.iterdir())


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "architecture MambaForCausalLM; known: LlamaForCausalLM"),
        ({"architectures": []}, "architecture not named"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', only 'silu' is supported"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_type is 'llama3'"),
        ({"num_key_value_heads": 3}, "does not divide"),
        ({"hidden_size": "wide"}, "width: Input should be a valid integer"),
        ({"vocab_size": 98}, r"tensor model.embed_tokens.weight is \[97, 48\], config.json wants \[98, 48\]"),
        ({"num_hidden_layers": 3}, r"tensor model.layers.2\S+ is missing \(9 in all\)"),
        ({"num_hidden_layers": 1}, r"tensor model.layers.1\S+ has no place \(9 in all\)"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_clear_error(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    save_model(make_model(LLAMA), tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    save_model(make_model(LLAMA), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="a pickle, which can run code"):
        load_model(tmp_path)


def test_a_truncated_file_is_one_clear_error(tmp_path: Path) -> None:
    save_model(make_model(LLAMA), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_model(tmp_path)


def test_an_empty_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        load_model(tmp_path)


def test_the_two_kinds_of_model_are_not_taken_for_each_other(tmp_path: Path) -> None:
    save_model(make_model(LLAMA), tmp_path)
    with pytest.raises(ModelError, match="a language model, wanted a scalar model"):
        load_scalar_model(tmp_path)


def test_a_tied_matrix_that_was_stored_twice_loads(tmp_path: Path) -> None:
    save_model(make_model(LLAMA), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load_language_model(tmp_path)
    assert torch.equal(loaded.head_weight, tensors["model.embed_tokens.weight"])
    assert loaded.head_weight is loaded.trunk.token_embedding.weight
