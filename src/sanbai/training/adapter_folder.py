"""An adapter as a stage's result: in PEFT's layout in `adapter/`, and beside it the model with it merged.

Everything that is not training reads the merged model, which is like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.files import read_json
from sanbai.model.adapters.adapter import Adapted, merge_adapter
from sanbai.model.adapters.peft_folder import SETTINGS, load_adapter, save_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.adapters.shared import over_same_weights
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import Model, save_model
from sanbai.text.tokenizer import Tokenizer

AnyModel = TypeVar("AnyModel", bound=Model)

#: Where an adapter lies in a stage's folder.
ADAPTER = "adapter"
NO_ADAPTER = AdapterRecipe()


def write_adapter(adapted: Adapted, folder: Path, *, base: Artifact | None) -> None:
    """Write an adapter, without its model, into `adapter/` of a stage's folder.

    Args:
        adapted: what has learnt.
        folder: the stage's.
        base: the artifact whose model it stands beside, where there is one.
    """
    inner = folder / ADAPTER
    inner.mkdir(exist_ok=True)
    save_adapter(adapted, inner, base=None if base is None else base.name)


def merged(base: AnyModel, folder: Path) -> AnyModel:
    """Return a model with the adapter of a stage's folder added to its weights; the base's stay as they are.

    Memory: the base is shared, and what the adapter stands beside is there once more.
    """
    model = over_same_weights(base)
    merge_adapter(load_adapter(model, folder / ADAPTER))
    return model


def save_merged(
    adapted: Adapted, model: LanguageModel, folder: Path, tokenizer: Tokenizer, *, base: Artifact | None
) -> None:
    """Write an adapter into a stage's folder, and beside it the model with it merged.

    Args:
        adapted: what has learnt.
        model: what it stands beside, as it was stored.
        folder: the stage's.
        tokenizer: saved beside the model.
        base: the model's artifact, where there is one.
    """
    write_adapter(adapted, folder, base=base)
    save_model(merged(model, folder), folder, tokenizer)


def has_adapter(folder: Path, *, base: Artifact) -> bool:
    """Return whether a stage's folder holds an adapter that stands beside an artifact's model."""
    settings = folder / ADAPTER / SETTINGS
    return settings.is_file() and read_json(settings).get("base_model_name_or_path") == base.name
