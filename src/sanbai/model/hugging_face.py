"""Models as Hugging Face folders: `config.json`, `generation_config.json`, `model.safetensors`, never pickle.

The folder is that of a stock architecture, so transformers, vLLM, SGLang and llama.cpp load it unchanged. Each family's
names and settings are tables in `layouts/`; here they are only applied.

A stock score head has no bias. A scalar model's bias is kept in `config.json` as `sanbai_reward_bias`: other programs
give scores that lie lower by that constant, and rank the same. Settings of experts that no stock layout has, such as
their capacity, are kept there as `sanbai_experts`. A prefix mask is saved as a causal one, which it is for who gives no
prefix, and kept as `sanbai_masks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from pydantic import ValidationError
from torch import nn

from sanbai.foundation.errors import DataError, ModelError
from sanbai.foundation.files import read_json, write_json_atomic
from sanbai.foundation.tensor_file import save_tensors
from sanbai.model.config import ModelConfig
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.layouts import bert, gpt, llama, t5
from sanbai.model.layouts.layout import Head, Layout, Settings, Stored, effective_fields, stored_parameters
from sanbai.model.reading_heads import Classifier, MaskedModel, MaskedPairModel, NextSentenceModel, SpanModel
from sanbai.model.stored_tensors import WEIGHTS, StoredTensors
from sanbai.model.transformer import Transformer
from sanbai.text.tokenizer import Tokenizer

Model: TypeAlias = (
    LanguageModel
    | ScalarModel
    | MaskedModel
    | MaskedPairModel
    | NextSentenceModel
    | Classifier
    | SpanModel
    | EncoderDecoder
    | Transformer
)
"""Whatever a folder may hold; the last is a trunk without a head."""

LAYOUTS = (
    llama.LLAMA,
    gpt.GPT2,
    llama.QWEN2,
    llama.QWEN3,
    gpt.GPT1,
    gpt.GPT_NEO,
    bert.BERT,
    bert.ERNIE,
    bert.ALBERT,
    t5.T5,
    t5.T5_GATED,
    t5.MT5,
    llama.MIXTRAL,
    llama.QWEN3_MOE,
    t5.SWITCH,
)
"""The first that fits a shape is the one it is saved in."""

BIAS_KEY = "sanbai_reward_bias"
EXPERTS_KEY = "sanbai_experts"
MASKS_KEY = "sanbai_masks"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def save_model(model: Model, folder: Path, tokenizer: Tokenizer | None = None) -> None:
    """Write a model into a folder that exists, with its tokenizer's files if one is given.

    Memory: beside the model, one tensor at a time.

    Raises:
        ModelError: the configuration is of no stock architecture, or the model has an adapter.
        ResourceError: no space or no permission.
    """
    layout, head = layout_for(model)
    table = dict(stored_parameters(model, layout, head))
    unstored = {name for name, _ in model.named_parameters()} - table.keys()
    if unstored - ({"head.bias"} if isinstance(model, ScalarModel) else set()):
        raise ModelError(f"{min(unstored)} has no place in a stock model; merge the adapter, or save it on its own")
    tensors = {}
    for name, stored in table.items():
        tensors.update(stored.take_apart(model.get_parameter(name).detach()))
    settings = _describe(model, layout, head, tokenizer)
    save_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})
    if isinstance(model, LanguageModel | EncoderDecoder):
        keys = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        special = {key: settings[key] for key in keys if key in settings}
        write_json_atomic(folder / "generation_config.json", {"_from_model_config": True, **special})
    if tokenizer is not None:
        tokenizer.save(folder)
    write_json_atomic(folder / "config.json", settings)


def load_model(folder: Path, *, dtype: torch.dtype | None = torch.float32) -> Model:
    """Read a model from a folder, in evaluation mode, on the CPU.

    Args:
        folder: in one of the layouts, in one file or sharded.
        dtype: of the parameters, whatever the files hold; None takes that of the files.

    Raises:
        ModelError: unknown architecture or setting, a missing, surplus or misshapen tensor, a pickle.
    """
    stored = StoredModel.open(folder)
    model, table = stored.model, stored.table
    dtype = dtype or stored.dtype
    state = {}
    # The largest come first: one of them in memory twice, beside few others, is the most that is ever needed.
    for name in sorted(table, key=lambda name: -model.get_parameter(name).numel()):
        state[name] = torch.empty(model.get_parameter(name).shape, dtype=dtype)
        table[name].put_together(stored.tensors.read, into=state[name])
    if isinstance(model, ScalarModel):
        state["head.bias"] = torch.tensor([float(stored.settings.get(BIAS_KEY, 0.0))], dtype=dtype)
    model.load_state_dict(state, assign=True, strict=False)
    if isinstance(model, EncoderDecoder):
        model.tie()
    assert not any(parameter.is_meta for parameter in model.parameters())
    model.eval()
    return model


@dataclass(frozen=True)
class StoredModel:
    """A folder whose headers have been read and fit; no weight has.

    Attributes:
        settings: the content of `config.json`.
        architecture: what transformers calls it.
        model: its shape, on the meta device.
        table: how each of the model's parameters is stored.
        tensors: the files.
    """

    settings: Settings
    architecture: str
    model: Model
    table: Mapping[str, Stored]
    tensors: StoredTensors

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the largest parameter: norms may be stored more exactly than the rest."""
        largest = max(self.table, key=lambda name: self.model.get_parameter(name).numel())
        return self.tensors.dtype(self.table[largest].names[0])

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return _NAMES[type(self.model)]

    @classmethod
    def open(cls, folder: Path) -> StoredModel:
        """Look at a folder.

        Raises:
            ModelError: as `load_model`.
        """
        settings = _read_settings(folder)
        config, layout, head = _understand(settings, folder / "config.json")
        whole = head.model is not Transformer
        tensors = StoredTensors(
            folder, prefix=layout.prefix if whole else "", ignored=f"{layout.ignored}|{head.unused}"
        )
        if config.tied_embeddings and not _is_tied(tensors, layout):
            config = ModelConfig.model_validate({**config.model_dump(), "tied_embeddings": False})
        with torch.device("meta"):
            model: Any = head.model(config, _num_classes(settings)) if head.model is Classifier else head.model(config)
        table = dict(stored_parameters(model, layout, head))
        wanted = {name for stored in table.values() for name in stored.names}
        _check_names(wanted, tensors.names - (layout.copies.keys() - wanted), folder)
        for name, stored in table.items():
            for theirs, shape in stored.shapes(model.get_parameter(name)):
                tensors.dtype(theirs)
                if tensors.shape(theirs) != shape:
                    found, fits = list(tensors.shape(theirs)), list(shape)
                    raise ModelError(f"{folder}: tensor {theirs} is {found}, config.json wants {fits}")
        return cls(settings, head.architecture, model, table, tensors)


def _read_settings(folder: Path) -> dict[str, Any]:
    """Return the content of `config.json`.

    Raises:
        ModelError: absent, damaged, or of weights that are not plain numbers.
    """
    if not (folder / "config.json").is_file():
        inside = "holds an adapter alone; load the model that it was trained on, then `load_adapter`"
        alone = any((folder / place).is_file() for place in ("adapter_config.json", "adapter/adapter_config.json"))
        reason = inside if alone else "no config.json; a model is a folder in Hugging Face layout"
        raise ModelError(f"{folder}: {reason}")
    try:
        settings = read_json(folder / "config.json")
    except DataError as error:
        raise ModelError(str(error)) from None
    if not isinstance(settings, dict):
        raise ModelError(f"{folder / 'config.json'}: found {type(settings).__name__}, wanted a JSON object")
    if quantised := settings.get("quantization_config"):
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else "unknown"
        raise ModelError(f"{folder}: its weights are quantised ({method}); take the unquantised model")
    return settings


def load_language_model(folder: Path, *, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Return `load_model`, refusing any other model."""
    model = load_model(folder, dtype=dtype)
    if not isinstance(model, LanguageModel):
        raise ModelError(f"{folder}: {_NAMES[type(model)]}, wanted a language model")
    return model


def load_writer(folder: Path, *, dtype: torch.dtype = torch.float32) -> LanguageModel | EncoderDecoder:
    """Return `load_model`, refusing what writes no text."""
    model = load_model(folder, dtype=dtype)
    if not isinstance(model, LanguageModel | EncoderDecoder):
        raise ModelError(f"{folder}: {_NAMES[type(model)]}, wanted a language model or an encoder-decoder")
    return model


def load_scalar_model(folder: Path, *, dtype: torch.dtype = torch.float32) -> ScalarModel:
    """Return `load_model`, refusing any other model."""
    model = load_model(folder, dtype=dtype)
    if not isinstance(model, ScalarModel):
        raise ModelError(f"{folder}: {_NAMES[type(model)]}, wanted a scalar model (a reward or value model)")
    return model


def load_scalar_head(folder: Path) -> nn.Linear:
    """Return the head of a scalar model's folder, in float32, without reading the rest.

    Raises:
        ModelError: as `load_scalar_model`.
    """
    stored = StoredModel.open(folder)
    if not isinstance(stored.model, ScalarModel):
        raise ModelError(f"{folder}: {stored.kind}, wanted a scalar model (a reward or value model)")
    head = nn.Linear(stored.model.config.width, 1)
    with torch.no_grad():
        stored.table["head.weight"].put_together(stored.tensors.read, into=head.weight)
        head.bias.fill_(float(stored.settings.get(BIAS_KEY, 0.0)))
    return head


_NAMES: dict[type[nn.Module], str] = {
    LanguageModel: "a language model",
    ScalarModel: "a scalar model",
    MaskedModel: "a masked model",
    MaskedPairModel: "a masked model with sentence pairs",
    NextSentenceModel: "a next-sentence model",
    Classifier: "a classifier",
    SpanModel: "a span model",
    EncoderDecoder: "an encoder-decoder",
    Transformer: "a trunk without a head",
}


def layout_for(model: Model) -> tuple[Layout, Head]:
    """Return the first layout that gives the model's shape back, and the architecture of its head.

    Raises:
        ModelError: there is none.
    """
    config = _without_prefix(model.config)
    wanted = effective_fields(config)
    nearest: tuple[int, str] = (len(wanted), "")
    for layout in LAYOUTS:
        try:
            settings = {"vocab_size": config.vocab_size, "tie_word_embeddings": config.tied_embeddings}
            found = effective_fields(ModelConfig.model_validate(layout.read({**settings, **layout.write(config)})))
        except (ModelError, ValidationError):
            continue
        differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if not differing:
            for head in layout.heads:
                if head.model is type(model):
                    return layout, head
            differing = [f"having no head for {_NAMES[type(model)]}"]
        nearest = min(nearest, (len(differing), f"{layout.model_type}, differs in {', '.join(differing)}"))
    raise ModelError(f"no stock architecture has this shape; the nearest, {nearest[1] or 'none, differs in all'}")


def _without_prefix(config: ModelConfig) -> ModelConfig:
    masks = ["causal" if kind == "prefix" else kind for kind in config.masks]
    return ModelConfig.model_validate({**config.model_dump(), "masks": masks})


def _describe(model: Model, layout: Layout, head: Head, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return the content of `config.json`."""
    config = model.config
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        raise ModelError(
            f"a model of {config.vocab_size} ids cannot be saved with a tokenizer of {tokenizer.vocab_size}; "
            "save it with the one it was trained with"
        )
    reserved = None if tokenizer is None else tokenizer.reserved
    dtype = next(name for name, dtype in _DTYPES.items() if dtype == next(model.parameters()).dtype)
    settings: dict[str, Any] = {
        "architectures": [head.architecture],
        "model_type": layout.model_type,
        "dtype": dtype,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": None if reserved is None else reserved.end_of_text,
        "eos_token_id": None if reserved is None else [reserved.end, *sorted(reserved.ends() - {reserved.end})],
        # A stock score head finds each row's last token by looking for padding, so it needs an id for it.
        "pad_token_id": 0 if reserved is None else reserved.pad,
        **layout.write(_without_prefix(config)),
    }
    if "prefix" in config.masks:
        settings[MASKS_KEY] = config.masks
    if config.sparse_layers != "none":
        settings[EXPERTS_KEY] = config.experts.model_dump(mode="json")
    if isinstance(model, ScalarModel):
        settings |= {"num_labels": 1, BIAS_KEY: model.head.bias.item()}
    if isinstance(model, Classifier):
        settings |= {"num_labels": model.head.out_features}
    return settings


def _understand(settings: Settings, path: Path) -> tuple[ModelConfig, Layout, Head]:
    """Return what `config.json` asks for: the shape, the layout of names, the head.

    Raises:
        ModelError: it asks for something that we do not have.
    """
    architectures = settings.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    known = [(layout, head) for layout in LAYOUTS for head in layout.heads]
    candidates = [(layout, head) for layout, head in known if head.architecture == name]
    if not candidates:
        names = dict.fromkeys(head.architecture for _, head in known)
        raise ModelError(f"{path}: architecture {name or 'not named'}; known: {', '.join(names)}")
    if any(head.model is ScalarModel for _, head in candidates):
        scalar = _num_classes(settings) == 1
        candidates = [(layout, head) for layout, head in candidates if (head.model is ScalarModel) == scalar]
    problem = ""
    for layout, head in candidates:
        try:
            fields = layout.read(settings)
            if EXPERTS_KEY in settings:
                fields["experts"] = settings[EXPERTS_KEY]
            if MASKS_KEY in settings:
                fields["masks"] = settings[MASKS_KEY]
            return ModelConfig.model_validate(fields), layout, head
        except ModelError as error:
            problem = problem or str(error)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the shape"
            problem = problem or f"{place}: {first['msg']}; found {first['input']!r}"
    raise ModelError(f"{path}: {problem}")


def _num_classes(settings: Settings) -> int:
    """Return how many classes a classifier has; transformers writes their names, and nothing where they are two."""
    if "num_labels" in settings:
        return int(settings["num_labels"])
    return len(settings["id2label"]) if "id2label" in settings else 2


def _is_tied(tensors: StoredTensors, layout: Layout) -> bool:
    """Return whether a file's head, if it stores one, is the embedding; T5's settings do not tell."""
    head, embedding = "lm_head.weight", layout.copies.get("lm_head.weight", "")
    if not {head, embedding} <= tensors.names:
        return True
    return torch.equal(tensors.read(head), tensors.read(embedding))


def _check_names(wanted: set[str], found: set[str], folder: Path) -> None:
    missing, surplus = sorted(wanted - found), sorted(found - wanted)
    if missing:
        raise ModelError(f"{folder}: tensor {missing[0]} is missing ({len(missing)} in all); the weights are not whole")
    if surplus:
        raise ModelError(
            f"{folder}: tensor {surplus[0]} has no place ({len(surplus)} in all); config.json describes another model"
        )
