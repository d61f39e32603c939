"""The tensors of a model's folder, read one at a time: never pickle, and never the whole file in memory."""

from __future__ import annotations

import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sanbai.foundation.errors import ModelError
from sanbai.foundation.files import read_json

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}
"""TensorFlow's words for the parts of a layer norm, which some converted files keep."""


class StoredTensors:
    """What a folder's safetensors files hold, one file or sharded."""

    def __init__(self, folder: Path, *, prefix: str = "", ignored: str = "(?!)") -> None:
        """Look at the files' headers.

        Args:
            folder: of the model.
            prefix: given to every name if no name in the files begins with it.
            ignored: pattern of names that are left out.

        Raises:
            ModelError: no weights there, damaged, or a shard missing.
        """
        self.folder = folder
        stored: dict[str, tuple[Path, str]] = {}
        for path in _files(folder):
            try:
                with safe_open(path, framework="pt") as file:
                    stored |= {_today(name): (path, name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            except (SafetensorError, FileNotFoundError) as error:
                raise ModelError(f"{path}: not a whole safetensors file: {error}") from None
        if not any(name.startswith(prefix) for name in stored):
            stored = {prefix + name: place for name, place in stored.items()}
        self._places = {name: place for name, place in stored.items() if not re.fullmatch(ignored, name)}

    @property
    def names(self) -> set[str]:
        """Of all tensors that are not ignored."""
        return set(self._places)

    def read(self, name: str) -> Tensor:
        """Return one tensor. The file is opened for it alone, so that no other's pages stay mapped."""
        path, stored = self._places[name]
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(stored)
        return tensor


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / WEIGHTS_INDEX).is_file():
        return [folder / name for name in sorted(set(read_json(folder / WEIGHTS_INDEX)["weight_map"].values()))]
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(f"{folder}: holds {pickles[0]}, a pickle, which can run code; convert it to safetensors")
    raise ModelError(f"{folder}: no {WEIGHTS}; the weights are missing")


def _today(name: str) -> str:
    stem, _, part = name.rpartition(".")
    return f"{stem}.{_OLD_NAMES.get(part, part)}" if stem else name
