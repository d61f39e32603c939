"""Models as Hugging Face folders: `config.json`, `generation_config.json`, `model.safetensors`, never pickle.

The folder is that of a stock architecture, so transformers, vLLM, SGLang and llama.cpp load it unchanged:

    rotary, RMS norm, SwiGLU     LlamaForCausalLM   LlamaForSequenceClassification (a scalar model)
    learned, layer norm, GELU    GPT2LMHeadModel    GPT2ForSequenceClassification

A stock score head has no bias. A scalar model's bias is kept in `config.json` as `sanbai_reward_bias`: other programs
give scores that lie lower by that constant, and rank the same.

How each of our tensors is stored is one row of a table (`_Stored`): names of the pieces it is joined from, and whether
they are transposed (GPT-2's Conv1D).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from sanbai.foundation.errors import DataError, ModelError
from sanbai.foundation.files import read_json, write_atomic, write_json_atomic
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.text.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
BIAS_KEY = "sanbai_reward_bias"

_Kinds = dict[str, type[LanguageModel] | type[ScalarModel]]

_LLAMA: _Kinds = {"LlamaForCausalLM": LanguageModel, "LlamaForSequenceClassification": ScalarModel}
_GPT2: _Kinds = {"GPT2LMHeadModel": LanguageModel, "GPT2ForSequenceClassification": ScalarModel}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def save_model(model: LanguageModel | ScalarModel, folder: Path, tokenizer: Tokenizer | None = None) -> None:
    """Write a model into a folder that exists, with its tokenizer's files if one is given.

    Raises:
        ModelError: the configuration is of no stock architecture.
        ResourceError: no space or no permission.
    """
    layout = _layout_of(model.config)
    tensors = {}
    parameters = dict(model.named_parameters())
    for name, stored in _table(model, layout).items():
        tensors.update(stored.take_apart(parameters[name].detach()))
    configuration = _describe(model, layout, tokenizer)
    write_atomic(folder / WEIGHTS, to_safetensors(tensors, metadata={"format": "pt"}))
    if isinstance(model, LanguageModel):
        special = {key: configuration[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        write_json_atomic(folder / "generation_config.json", {"_from_model_config": True, **special})
    if tokenizer is not None:
        tokenizer.save(folder)
    write_json_atomic(folder / "config.json", configuration)


def load_model(folder: Path, *, dtype: torch.dtype = torch.float32) -> LanguageModel | ScalarModel:
    """Read a model from a folder, in evaluation mode, on the CPU.

    Args:
        folder: in one of the layouts above, in one file or sharded.
        dtype: of the parameters, whatever the files hold.

    Raises:
        ModelError: unknown architecture or setting, a missing, surplus or misshapen tensor, a pickle.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json; a model is a folder in Hugging Face layout")
    try:
        configuration = read_json(folder / "config.json")
    except DataError as error:
        raise ModelError(str(error)) from None
    kind, config, layout = _understand(configuration, folder / "config.json")
    with torch.device("meta"):
        model = kind(config)
    tensors = _read_tensors(folder)
    table = _table(model, layout)
    if isinstance(model, LanguageModel) and config.tied_embeddings:
        tensors.pop("lm_head.weight", None)  # some programs store the tied matrix twice
    _check_names({name for stored in table.values() for name in stored.names}, set(tensors), folder)
    state = {}
    for name, parameter in model.named_parameters():
        if name not in table:
            continue
        state[name] = table[name].put_together(tensors, parameter.shape, folder).to(dtype, copy=True)
    if isinstance(model, ScalarModel):
        state["head.bias"] = torch.tensor([float(configuration.get(BIAS_KEY, 0.0))], dtype=dtype)
    model.load_state_dict(state, assign=True)
    return model.eval()


def load_language_model(folder: Path, *, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Return `load_model`, refusing a scalar model."""
    model = load_model(folder, dtype=dtype)
    if not isinstance(model, LanguageModel):
        raise ModelError(f"{folder}: a scalar model, wanted a language model")
    return model


def load_scalar_model(folder: Path, *, dtype: torch.dtype = torch.float32) -> ScalarModel:
    """Return `load_model`, refusing a language model."""
    model = load_model(folder, dtype=dtype)
    if not isinstance(model, ScalarModel):
        raise ModelError(f"{folder}: a language model, wanted a scalar model (a reward or value model)")
    return model


@dataclass(frozen=True, slots=True)
class _Stored:
    """How one parameter lies in the file: joined from pieces along its first axis, each perhaps transposed."""

    names: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    """Rows of each piece; needed only where there are several."""
    transposed: bool = False

    def take_apart(self, tensor: Tensor) -> dict[str, Tensor]:
        pieces = torch.split(tensor, list(self.sizes)) if self.sizes else (tensor,)
        flip = self.transposed
        return {
            name: (piece.t() if flip else piece).contiguous() for name, piece in zip(self.names, pieces, strict=True)
        }

    def put_together(self, tensors: Mapping[str, Tensor], shape: torch.Size, folder: Path) -> Tensor:
        rows = self.sizes or (shape[0],)
        pieces = []
        for name, num_rows in zip(self.names, rows, strict=True):
            piece = tensors[name].t() if self.transposed else tensors[name]
            wanted = (num_rows, *shape[1:])
            if piece.shape != wanted:
                raise ModelError(f"{folder}: tensor {name} is {list(piece.shape)}, config.json wants {list(wanted)}")
            pieces.append(piece)
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0].contiguous()


def _layout_of(config: ModelConfig) -> str:
    blocks = (config.norm, config.positions, config.feed_forward)
    if blocks == ("rms", "rotary", "swiglu"):
        return "llama"
    plain_heads = config.num_heads == config.num_kv_heads and config.num_heads * config.head_width == config.width
    if blocks == ("layer", "learned", "gelu_tanh") and config.bias and plain_heads:
        return "gpt2"
    raise ModelError(
        f"norm {config.norm}, positions {config.positions}, feed_forward {config.feed_forward}, bias {config.bias}: "
        "no stock architecture has these together; Llama has rms, rotary, swiglu; GPT-2 layer, learned, gelu_tanh, bias"
    )


def _table(model: LanguageModel | ScalarModel, layout: str) -> dict[str, _Stored]:
    """Return how each parameter is stored, by our name of it; a scalar head's bias is not in the file."""
    table = _llama_table(model.config) if layout == "llama" else _gpt2_table(model.config)
    if isinstance(model, ScalarModel):
        table["head.weight"] = _Stored(("score.weight",))
    elif not model.config.tied_embeddings:
        table["head.weight"] = _Stored(("lm_head.weight",))
    return table


def _llama_table(config: ModelConfig) -> dict[str, _Stored]:
    table = {
        "trunk.token_embedding.weight": _Stored(("model.embed_tokens.weight",)),
        "trunk.norm.weight": _Stored(("model.norm.weight",)),
    }
    heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    sizes = tuple(count * config.head_width for count in heads)
    for layer in range(config.num_layers):
        ours, theirs = f"trunk.blocks.{layer}", f"model.layers.{layer}"
        table[f"{ours}.attention_norm.weight"] = _Stored((f"{theirs}.input_layernorm.weight",))
        table[f"{ours}.feed_forward_norm.weight"] = _Stored((f"{theirs}.post_attention_layernorm.weight",))
        for part in ("weight", "bias") if config.bias else ("weight",):
            projections = tuple(f"{theirs}.self_attn.{name}_proj.{part}" for name in "qkv")
            table[f"{ours}.attention.qkv.{part}"] = _Stored(projections, sizes)
            table[f"{ours}.attention.out.{part}"] = _Stored((f"{theirs}.self_attn.o_proj.{part}",))
            for name in ("gate", "up", "down"):
                table[f"{ours}.feed_forward.{name}.{part}"] = _Stored((f"{theirs}.mlp.{name}_proj.{part}",))
    return table


def _gpt2_table(config: ModelConfig) -> dict[str, _Stored]:
    table = {
        "trunk.token_embedding.weight": _Stored(("transformer.wte.weight",)),
        "trunk.position_embedding.weight": _Stored(("transformer.wpe.weight",)),
        "trunk.norm.weight": _Stored(("transformer.ln_f.weight",)),
        "trunk.norm.bias": _Stored(("transformer.ln_f.bias",)),
    }
    names = {
        "attention_norm": "ln_1",
        "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj",
        "feed_forward_norm": "ln_2",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    }
    for layer in range(config.num_layers):
        for ours, theirs in names.items():
            for part in ("weight", "bias"):
                transposed = part == "weight" and not ours.endswith("norm")
                stored = _Stored((f"transformer.h.{layer}.{theirs}.{part}",), transposed=transposed)
                table[f"trunk.blocks.{layer}.{ours}.{part}"] = stored
    return table


def _describe(model: LanguageModel | ScalarModel, layout: str, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return the content of `config.json`."""
    config = model.config
    if tokenizer is not None and tokenizer.vocab_size != config.vocab_size:
        raise ModelError(
            f"a model of {config.vocab_size} ids cannot be saved with a tokenizer of {tokenizer.vocab_size}; "
            "save it with the one it was trained with"
        )
    reserved = None if tokenizer is None else tokenizer.reserved
    kinds = _LLAMA if layout == "llama" else _GPT2
    dtype = next(name for name, dtype in _DTYPES.items() if dtype == model.trunk.token_embedding.weight.dtype)
    description: dict[str, Any] = {
        "architectures": [name for name, kind in kinds.items() if isinstance(model, kind)],
        "model_type": layout,
        "dtype": dtype,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": None if reserved is None else reserved.end_of_text,
        "eos_token_id": None if reserved is None else [reserved.end, reserved.end_of_text],
        # A stock score head finds each row's last token by looking for padding, so it needs an id for it.
        "pad_token_id": 0 if reserved is None else reserved.pad,
    }
    if layout == "llama":
        description |= {
            "hidden_size": config.width,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.num_kv_heads,
            "head_dim": config.head_width,
            "intermediate_size": config.feed_forward_width,
            "hidden_act": "silu",
            "rms_norm_eps": config.norm_epsilon,
            "max_position_embeddings": config.max_positions,
            "rope_theta": config.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
            "attention_bias": config.bias,
            "mlp_bias": config.bias,
            "initializer_range": 0.02,
        }
    else:
        description |= {
            "n_embd": config.width,
            "n_layer": config.num_layers,
            "n_head": config.num_heads,
            "n_inner": config.feed_forward_width,
            "n_positions": config.max_positions,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": config.norm_epsilon,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }
    if isinstance(model, ScalarModel):
        description |= {"num_labels": 1, BIAS_KEY: model.head.bias.item()}
    return description


def _understand(configuration: Any, path: Path) -> tuple[type[LanguageModel | ScalarModel], ModelConfig, str]:
    """Return what `config.json` asks for: the head, the shape, the layout of names.

    Raises:
        ModelError: it asks for something that we do not have.
    """
    architectures = configuration.get("architectures") if isinstance(configuration, dict) else None
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    kinds = {**_LLAMA, **_GPT2}
    if name not in kinds:
        raise ModelError(f"{path}: architecture {name or 'not named'}; known: {', '.join(kinds)}")
    layout = "llama" if name in _LLAMA else "gpt2"
    fields = _llama_fields(configuration, path) if layout == "llama" else _gpt2_fields(configuration, path)
    if kinds[name] is ScalarModel and configuration.get("num_labels", 1) != 1:
        raise ModelError(f"{path}: {configuration['num_labels']} labels, wanted 1")
    try:
        return kinds[name], ModelConfig.model_validate(fields), layout
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "the shape"
        raise ModelError(f"{path}: {place}: {problem['msg']}; found {problem['input']!r}") from None


def _require(configuration: Mapping[str, Any], path: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse settings that would change the numbers in silence; an absent key has the wanted value."""
    for key, value in wanted.items():
        if configuration.get(key, value) != value:
            raise ModelError(f"{path}: {key} is {configuration[key]!r}, only {value!r} is supported")


def _llama_fields(configuration: Mapping[str, Any], path: Path) -> dict[str, Any]:
    rope = configuration.get("rope_parameters") or configuration.get("rope_scaling") or {}
    _require(rope, path, {"rope_type": "default"})
    bias = configuration.get("attention_bias", False)
    _require(configuration, path, {"hidden_act": "silu", "mlp_bias": bias, "pretraining_tp": 1})
    heads = configuration.get("num_attention_heads")
    width = configuration.get("hidden_size")
    head_width = configuration.get("head_dim")
    if head_width is None and isinstance(heads, int) and isinstance(width, int):
        head_width = width // max(heads, 1)
    return {
        "vocab_size": configuration.get("vocab_size"),
        "num_layers": configuration.get("num_hidden_layers"),
        "width": width,
        "num_heads": heads,
        "num_kv_heads": configuration.get("num_key_value_heads", heads),
        "head_width": head_width,
        "feed_forward": "swiglu",
        "feed_forward_width": configuration.get("intermediate_size"),
        "norm": "rms",
        "norm_epsilon": configuration.get("rms_norm_eps", 1e-6),
        "positions": "rotary",
        "max_positions": configuration.get("max_position_embeddings", 2048),
        "rope_theta": rope.get("rope_theta", configuration.get("rope_theta", 10_000.0)),
        "bias": bias,
        "tied_embeddings": configuration.get("tie_word_embeddings", False),
    }


def _gpt2_fields(configuration: Mapping[str, Any], path: Path) -> dict[str, Any]:
    wanted = {
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    _require(configuration, path, wanted)
    width, heads = configuration.get("n_embd", 768), configuration.get("n_head", 12)
    return {
        "vocab_size": configuration.get("vocab_size", 50_257),
        "num_layers": configuration.get("n_layer", 12),
        "width": width,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_width": width // heads,
        "feed_forward": "gelu_tanh",
        "feed_forward_width": configuration.get("n_inner") or 4 * width,
        "norm": "layer",
        "norm_epsilon": configuration.get("layer_norm_epsilon", 1e-5),
        "positions": "learned",
        "max_positions": configuration.get("n_positions", 1024),
        "bias": True,
        "tied_embeddings": configuration.get("tie_word_embeddings", True),
    }


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of the folder's safetensors files, one or sharded.

    Raises:
        ModelError: none there, damaged, or a shard missing.
    """
    if (folder / WEIGHTS).is_file():
        files = [WEIGHTS]
    elif (folder / WEIGHTS_INDEX).is_file():
        files = sorted(set(read_json(folder / WEIGHTS_INDEX)["weight_map"].values()))
    else:
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickles:
            raise ModelError(f"{folder}: holds {pickles[0]}, a pickle, which can run code; convert it to safetensors")
        raise ModelError(f"{folder}: no {WEIGHTS}; the weights are missing")
    tensors: dict[str, Tensor] = {}
    for name in files:
        try:
            with safe_open(folder / name, framework="pt") as file:
                tensors.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - not a mapping
        except (SafetensorError, FileNotFoundError) as error:
            raise ModelError(f"{folder / name}: not a whole safetensors file: {error}") from None
    # Old GPT-2 files keep each layer's causal mask beside its weights.
    return {name: tensor for name, tensor in tensors.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}


def _check_names(wanted: set[str], found: set[str], folder: Path) -> None:
    missing, surplus = sorted(wanted - found), sorted(found - wanted)
    if missing:
        raise ModelError(f"{folder}: tensor {missing[0]} is missing ({len(missing)} in all); the weights are not whole")
    if surplus:
        raise ModelError(
            f"{folder}: tensor {surplus[0]} has no place ({len(surplus)} in all); config.json describes another model"
        )
