"""Adapters in PEFT's folders: `adapter_config.json` and `adapter_model.safetensors`, never pickle.

Tensors are named by the modules of transformers' classes, which the model's layout knows. PEFT stores a prompt as it is
read, without the network that wrote it; so do we, and such a folder is read back as a plain prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sanbai.foundation.errors import DataError, ModelError
from sanbai.foundation.files import read_json, write_json_atomic
from sanbai.foundation.tensor_file import save_tensors
from sanbai.model.adapters.adapter import (
    Adapted,
    adaptable,
    prepare,
    prompted_trunk,
    put_factors,
    put_prompt,
    remove_adapter,
)
from sanbai.model.adapters.prompts import EncodedTokens
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import Model
from sanbai.model.layouts.layout import require, stored_parameters

SETTINGS = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_ROOT = "base_model.model."
_PROMPT = "prompt_embeddings"

_METHODS = {"LORA": "lora", "PROMPT_TUNING": "prompt", "P_TUNING": "prompt", "PREFIX_TUNING": "prefix"}
"""PEFT's words for what is read, to ours."""
_WORDS = {"lora": "LORA", "prompt": "PROMPT_TUNING", "p_tuning": "P_TUNING", "prefix": "PREFIX_TUNING"}
_PLAIN_LORA: Mapping[str, Any] = {
    "bias": "none",
    "use_dora": False,
    "use_qalora": False,
    "lora_bias": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layer_replication": None,
    "target_parameters": None,
    "trainable_token_indices": None,
    "alora_invocation_tokens": None,
    "modules_to_save": None,
}


def save_adapter(adapted: Adapted, folder: Path, *, base: str | None = None) -> None:
    """Write an adapter, without its model, into a folder that exists.

    Args:
        adapted: from `add_adapter` or `load_adapter`.
        folder: gets two files.
        base: path or name of the model, for programs that want to find it themselves.

    Raises:
        ResourceError: no space or no permission.
    """
    recipe, model = adapted.recipe, adapted.model
    task = {LanguageModel: "CAUSAL_LM", EncoderDecoder: "SEQ_2_SEQ_LM"}.get(type(model))
    settings: dict[str, Any] = {
        "peft_type": _WORDS[recipe.method],
        "task_type": task,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "modules_to_save": None,
    }
    if recipe.method == "lora":
        pieces = {piece.rows.module: piece for _, linear in adapted.linears() for piece in linear.pieces}
        tensors: dict[str, Tensor] = {
            f"{_ROOT}{module}.lora_{letter}.weight": factor
            for module, piece in pieces.items()
            for letter, factor in (("A", piece.a), ("B", piece.b))
        }
        settings |= {
            "r": recipe.rank,
            "lora_alpha": int(recipe.alpha) if recipe.alpha.is_integer() else recipe.alpha,
            "lora_dropout": recipe.dropout,
            "use_rslora": recipe.rank_stabilised,
            "bias": "none",
            "fan_in_fan_out": bool(adapted.layout.transposed),
            "target_modules": _shortest_endings(set(pieces), _all_modules(adapted)),
        }
    else:
        config, prompt = model.config, prompted_trunk(model).prompt
        assert prompt is not None
        tensors = {_PROMPT: prompt.stored()}
        prefix = recipe.method == "prefix"
        settings |= {
            "num_virtual_tokens": recipe.num_virtual_tokens,
            "num_transformer_submodules": 1,
            "num_layers": config.num_layers,
            "num_attention_heads": config.num_kv_heads if prefix else config.num_heads,
            "token_dim": config.num_kv_heads * config.head_width if prefix else config.embedding_size,
        }
        if isinstance(prompt, EncodedTokens):
            settings |= {"encoder_reparameterization_type": "MLP", "encoder_hidden_size": recipe.encoder_width}
    save_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})
    write_json_atomic(folder / SETTINGS, settings)


def load_adapter(model: Model, folder: Path) -> Adapted:
    """Give a model the adapter of a folder, ours or PEFT's.

    Args:
        model: the one that the adapter was trained on; changed in place.
        folder: with the two files.

    Raises:
        ModelError: a file is missing, damaged or a pickle; the adapter is of a kind that we do not have, or of a model
            of another shape.
    """
    settings, tensors = _read(folder)
    try:
        adapted = prepare(model, _understand(settings))
        try:
            if adapted.recipe.method == "lora":
                _load_factors(adapted, tensors)
            else:
                prompt = put_prompt(prompted_trunk(model), adapted.recipe)
                _fill(prompt.stored(), tensors.get(_PROMPT), _PROMPT)
        except ModelError:
            remove_adapter(adapted)
            raise
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from None
    return adapted


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the content of both files."""
    if not (folder / WEIGHTS).is_file() and (folder / _PICKLE).is_file():
        raise ModelError(f"{folder}: holds {_PICKLE}, a pickle, which can run code; convert it to safetensors")
    for name in (SETTINGS, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: no {name}; an adapter is a folder in PEFT's layout")
    try:
        settings, tensors = read_json(folder / SETTINGS), load_file(folder / WEIGHTS)
    except DataError as error:
        raise ModelError(str(error)) from None
    except SafetensorError as error:
        raise ModelError(f"{folder / WEIGHTS}: not a whole safetensors file: {error}") from None
    if not isinstance(settings, dict):
        raise ModelError(f"{folder / SETTINGS}: not an object of settings; an adapter is a folder in PEFT's layout")
    return settings, tensors


def _understand(settings: Mapping[str, Any]) -> AdapterRecipe:
    """Return what a folder's settings mean.

    Raises:
        ModelError: something that we do not have.
    """
    kind = settings.get("peft_type")
    if kind not in _METHODS:
        raise ModelError(f"peft_type is {kind!r}, only {', '.join(_METHODS)} are supported")
    fields: dict[str, Any] = {"method": _METHODS[kind]}
    if kind == "LORA":
        require({key: value for key, value in settings.items() if value}, _PLAIN_LORA)  # absent, null and empty are one
        names = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rank_stabilised": "use_rslora"}
    else:
        require(settings, {"num_transformer_submodules": 1, "modules_to_save": None})
        names = {"num_virtual_tokens": "num_virtual_tokens"}
    defaults = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "use_rslora": False}
    fields |= {ours: settings.get(theirs, defaults.get(theirs)) for ours, theirs in names.items()}
    try:
        return AdapterRecipe.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        ours = ".".join(map(str, first["loc"]))
        raise ModelError(f"{names.get(ours, ours)}: {first['msg']}; found {first['input']!r}") from None


def _load_factors(adapted: Adapted, tensors: dict[str, Tensor]) -> None:
    """Put factors wherever a tensor is named after a layer of ours."""
    for name, pieces in list(adaptable(adapted)):
        rows = [each for each, _ in pieces if f"{_ROOT}{each.module}.lora_A.weight" in tensors]
        if not rows:
            continue
        linear = put_factors(adapted.model, name, rows, adapted.recipe)
        for piece in linear.pieces:
            for letter, factor in (("A", piece.a), ("B", piece.b)):
                key = f"{_ROOT}{piece.rows.module}.lora_{letter}.weight"
                _fill(factor, tensors.pop(key, None), key)
    if tensors:
        raise ModelError(f"tensor {min(tensors)} has no place ({len(tensors)} in all); the adapter is of another model")


@torch.no_grad()
def _fill(place: Tensor, found: Tensor | None, name: str) -> None:
    if found is None:
        raise ModelError(f"tensor {name} is missing; the adapter is not whole")
    if found.shape != place.shape:
        raise ModelError(f"tensor {name} is {list(found.shape)}, the model wants {list(place.shape)}")
    place.copy_(found)


def _all_modules(adapted: Adapted) -> set[str]:
    """Return the names of all modules of transformers' class that hold parameters."""
    table = stored_parameters(adapted.model, adapted.layout, adapted.head)
    return {name.rpartition(".")[0] for _, stored in table for name in stored.names}


def _shortest_endings(wanted: set[str], every: set[str]) -> list[str]:
    """Return the endings by which PEFT finds the wanted modules and no other, as short as can be."""
    endings = set()
    for module in wanted:
        parts = module.split(".")
        candidates = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = every - wanted
        endings.add(
            next(
                ending
                for ending in candidates
                if not any(other == ending or other.endswith(f".{ending}") for other in others)
            )
        )
    return sorted(endings)
