"""Adapters against PEFT: the same folder, the same numbers, the same gradients, merged or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tests.model.families import FAMILIES, Family, ask_ours, ask_reference, make_reference, ragged_batch

from sanbai.model.adapters.adapter import Adapted, add_adapter, merge_adapter
from sanbai.model.adapters.peft_folder import load_adapter, save_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.hugging_face import load_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # PEFT asks for it
    pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning"),  # PEFT's prefixes come by it
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied"),  # they never were
]

EVERYWHERE = ("query", "key", "value", "out", "gate", "up", "down")
#: PEFT's names of all that ours adapts.
TARGETS = {
    "GPT-1": ["c_attn", "c_proj", "c_fc"],
    "GPT-2": ["c_attn", "c_proj", "c_fc"],
    "GPT-2, classes": ["c_attn", "c_proj", "c_fc"],
    "GPT-2, no head": ["c_attn", "c_proj", "c_fc"],
    "GPT-3's masks": ["q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"],
    "Llama 2": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "Llama, biases": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "Qwen2": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "Qwen3": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "Mixtral": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "BERT, masked": ["query", "key", "value", "attention.output.dense", "intermediate.dense", r"0.output.dense",
                     "1.output.dense", "2.output.dense"],
    "ALBERT": ["query", "key", "value", "attention.dense", "ffn", "ffn_output"],
    "T5 1.0": ["q", "k", "v", "o", "wi", "wo"],
    "T5 1.1": ["q", "k", "v", "o", "wi_0", "wi_1", "wo"],
    "Switch": ["q", "k", "v", "o", "mlp.wi", "mlp.wo"],
}  # fmt: skip
PROMPTED = ("GPT-1", "GPT-2", "GPT-3's masks", "Llama 2", "Llama 3", "Qwen2", "Qwen3", "Mixtral")
#: GPT-1 of transformers has no cache, and so no place for a prefix.
PREFIXED = [(method, name) for method in ("prompt", "p_tuning", "prefix") for name in PROMPTED
            if (method, name) != ("prefix", "GPT-1")]  # fmt: skip
PROMPTS: dict[str, dict[str, Any]] = {
    "prompt": {"class": "PromptTuningConfig"},
    "p_tuning": {"class": "PromptEncoderConfig", "encoder_hidden_size": 24},
    "prefix": {"class": "PrefixTuningConfig"},
}


def family(name: str) -> Family:
    return next(each for each in FAMILIES if each.name == name)


def randomise(parameters: Any) -> None:
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape) * 0.1)


def with_peft(name: str, folder: Path, config: Any) -> Any:
    """Write a random reference and PEFT's random adapter of it into folders; return the adapted reference."""
    reference = make_reference(family(name), transformers)
    reference.save_pretrained(folder / "base")
    adapted = peft.get_peft_model(reference, config)
    randomise(parameter for parameter in adapted.parameters() if parameter.requires_grad)
    (folder / "adapter").mkdir()
    adapted.save_pretrained(folder / "adapter")
    return adapted.eval()


def output(name: str, model: Any, *, ours: bool) -> torch.Tensor:
    """The first output on the real tokens of a batch padded on the right."""
    batch = ragged_batch("right")
    if ours:
        out = ask_ours(family(name), model, batch)[0]
    else:
        said = ask_reference(family(name), model, batch)
        out = (
            said["prediction_logits"]
            if "prediction_logits" in said
            else said["logits"]
            if "logits" in said
            else said["last_hidden_state"]
        )
    if out.dim() < 3:
        return out
    real = batch.written_real if family(name).encodes else batch.real
    return out[:, -real.shape[1] :][real.bool()]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("name", TARGETS)
def test_lora_of_peft_gives_the_same_outputs_and_gradients_here(tmp_path: Path, name: str, stabilised: bool) -> None:
    fan = name.startswith(("GPT-1", "GPT-2"))
    config = peft.LoraConfig(r=3, lora_alpha=5, use_rslora=stabilised, target_modules=TARGETS[name], fan_in_fan_out=fan)
    theirs = with_peft(name, tmp_path, config)
    ours = load_adapter(load_model(tmp_path / "base"), tmp_path / "adapter")
    expected, found = output(name, theirs, ours=False), output(name, ours.model, ours=True)
    assert_close(found, expected)
    plain = output(name, load_model(tmp_path / "base"), ours=True)
    assert (found - plain).norm() > 1e-2 * plain.norm(), "the adapter does nothing"

    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(7))
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    gradients = lora_gradients(ours)
    their_gradients = {
        key.replace(".default", ""): parameter.grad
        for key, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    assert gradients.keys() == their_gradients.keys()
    for key, gradient in gradients.items():
        assert (gradient - their_gradients[key]).norm() <= 1e-4 * max(their_gradients[key].norm(), 1e-3), key


def lora_gradients(adapted: Adapted) -> dict[str, torch.Tensor]:
    return {
        f"base_model.model.{piece.rows.module}.lora_{letter}.weight": factor.grad
        for _, linear in adapted.linears()
        for piece in linear.pieces
        for letter, factor in (("A", piece.a), ("B", piece.b))
    }


@pytest.mark.parametrize("name", ["GPT-2", "Llama 2", "T5 1.1", "BERT, masked"])
def test_merged_lora_has_the_weights_that_peft_merges(tmp_path: Path, name: str) -> None:
    fan = name.startswith("GPT-2")
    theirs = with_peft(name, tmp_path, peft.LoraConfig(r=3, target_modules=TARGETS[name], fan_in_fan_out=fan))
    ours = load_adapter(load_model(tmp_path / "base"), tmp_path / "adapter")
    before = output(name, ours.model, ours=True)
    merged = merge_adapter(ours)
    assert_close(output(name, merged, ours=True), before)
    theirs.merge_and_unload().save_pretrained(tmp_path / "merged")
    expected = load_model(tmp_path / "merged")
    assert dict(merged.named_parameters()).keys() == dict(expected.named_parameters()).keys()
    for key, parameter in merged.named_parameters():
        assert torch.allclose(parameter, expected.get_parameter(key), atol=1e-6), key
        assert parameter.requires_grad


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("targets", [("query", "value"), ("down", "out"), EVERYWHERE])
def test_lora_of_ours_is_loaded_by_peft(tmp_path: Path, name: str, targets: tuple[str, ...]) -> None:
    make_reference(family(name), transformers).save_pretrained(tmp_path / "base")
    recipe = AdapterRecipe(method="lora", rank=2, alpha=3.0, targets=targets)
    ours = add_adapter(load_model(tmp_path / "base"), recipe, torch.Generator().manual_seed(0))
    randomise(ours.parameters().values())
    (tmp_path / "adapter").mkdir()
    save_adapter(ours, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(make_reference(family(name), transformers), tmp_path / "adapter").eval()
    assert_close(output(name, ours.model, ours=True), output(name, theirs, ours=False))
    stored = load_file(tmp_path / "adapter/adapter_model.safetensors")
    their_keys = {key.replace(".default", "") for key in theirs.state_dict() if "lora_" in key}
    assert stored.keys() == their_keys, "PEFT adapts other modules than we"


@pytest.mark.parametrize(("method", "name"), PREFIXED)
def test_prompts_of_peft_give_the_same_outputs_and_gradients_here(tmp_path: Path, name: str, method: str) -> None:
    kind = PROMPTS[method]
    options = {key: value for key, value in kind.items() if key != "class"}
    config = getattr(peft, kind["class"])(num_virtual_tokens=3, task_type="CAUSAL_LM", **options)
    theirs = with_peft(name, tmp_path, config)
    ours = load_adapter(load_model(tmp_path / "base"), tmp_path / "adapter")
    expected, found = peft_output(theirs), output(name, ours.model, ours=True)
    assert_close(found, expected)
    plain = output(name, load_model(tmp_path / "base"), ours=True)
    assert (found - plain).norm() > 1e-2 * plain.norm(), "the adapter does nothing"
    if method == "p_tuning":
        return
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(7))
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    (parameter,) = ours.parameters().values()
    (their_parameter,) = (each for each in theirs.parameters() if each.requires_grad)
    assert (parameter.grad - their_parameter.grad).norm() <= 1e-4 * their_parameter.grad.norm()


def peft_output(model: Any) -> torch.Tensor:
    """Logits of the real tokens; PEFT counts positions itself, from the first virtual token on."""
    batch = ragged_batch("right")
    logits = model(input_ids=batch.tokens, attention_mask=batch.real).logits
    return logits[:, -batch.real.shape[1] :][batch.real.bool()]


@pytest.mark.parametrize(("method", "name"), PREFIXED)
def test_prompts_of_ours_are_loaded_by_peft(tmp_path: Path, name: str, method: str) -> None:
    make_reference(family(name), transformers).save_pretrained(tmp_path / "base")
    recipe = AdapterRecipe(method=method, num_virtual_tokens=4, encoder_width=10)
    ours = add_adapter(load_model(tmp_path / "base"), recipe, torch.Generator().manual_seed(0))
    randomise(ours.parameters().values())
    (tmp_path / "adapter").mkdir()
    save_adapter(ours, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(make_reference(family(name), transformers), tmp_path / "adapter").eval()
    assert_close(output(name, ours.model, ours=True), peft_output(theirs))


def test_p_tuning_writes_its_vectors_as_pefts_network_does(tmp_path: Path) -> None:
    make_reference(family("Llama 2"), transformers).save_pretrained(tmp_path / "base")
    config = peft.PromptEncoderConfig(num_virtual_tokens=3, task_type="CAUSAL_LM", encoder_hidden_size=24)
    theirs = peft.get_peft_model(make_reference(family("Llama 2"), transformers), config)
    recipe = AdapterRecipe(method="p_tuning", num_virtual_tokens=3, encoder_width=24)
    ours = add_adapter(load_model(tmp_path / "base"), recipe, torch.Generator().manual_seed(0))
    mine = list(ours.parameters().values())
    other = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    randomise(mine)
    randomise(other)
    assert [parameter.shape for parameter in mine] == [parameter.shape for parameter in other]
    expected, found = peft_output(theirs), output("Llama 2", ours.model, ours=True)
    assert_close(found, expected)
    expected.square().sum().backward()
    found.square().sum().backward()
    for parameter, their_parameter in zip(mine, other, strict=True):
        assert (parameter.grad - their_parameter.grad).norm() <= 1e-4 * their_parameter.grad.norm()


def test_the_settings_are_words_that_peft_knows(tmp_path: Path) -> None:
    make_reference(family("Llama 2"), transformers).save_pretrained(tmp_path)
    ours = add_adapter(load_model(tmp_path), AdapterRecipe(method="lora"), torch.Generator().manual_seed(0))
    save_adapter(ours, tmp_path, base="someone/model")
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["target_modules"] == ["q_proj", "v_proj"]
    config = peft.PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(config, peft.LoraConfig)
    assert (config.r, config.lora_alpha, config.base_model_name_or_path) == (8, 16, "someone/model")
    assert config.task_type == "CAUSAL_LM"
