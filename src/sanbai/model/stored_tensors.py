"""The tensors of a model's folder, read one at a time: never pickle, and never the whole file in memory."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sanbai.foundation.errors import ModelError
from sanbai.foundation.files import read_json

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
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
        self._headers: dict[tuple[Path, str], tuple[tuple[int, ...], str]] = {}
        for path in _files(folder):
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118 - not a mapping
                        header = file.get_slice(name)
                        self._headers[path, name] = (tuple(header.get_shape()), str(header.get_dtype()))
                        stored[_today(name)] = (path, name)
            except (SafetensorError, FileNotFoundError) as error:
                raise ModelError(f"{path}: not a whole safetensors file: {error}") from None
        if not any(name.startswith(prefix) for name in stored):
            stored = {prefix + name: place for name, place in stored.items()}
        self._places = {name: place for name, place in stored.items() if not re.fullmatch(ignored, name)}

    @property
    def files(self) -> list[Path]:
        """The files that hold them."""
        return sorted({path for path, _ in self._headers})

    @property
    def names(self) -> set[str]:
        """Of all tensors that are not ignored."""
        return set(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, as the file's header has it."""
        return self._headers[self._places[name]][0]

    def dtype(self, name: str) -> torch.dtype:
        """Return a tensor's dtype, as the file's header has it.

        Raises:
            ModelError: not a floating one.
        """
        word = self._headers[self._places[name]][1]
        if word not in _DTYPES:
            raise ModelError(f"{self.folder}: tensor {name} is {word}, wanted one of {', '.join(_DTYPES)}")
        return _DTYPES[word]

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
        return [folder / name for name in _shards(folder / WEIGHTS_INDEX)]
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(f"{folder}: holds {pickles[0]}, a pickle, which can run code; convert it to safetensors")
    raise ModelError(f"{folder}: no {WEIGHTS}; the weights are missing")


def _shards(index: Path) -> list[str]:
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not all(Path(str(name)).name == name for name in shards.values()):
        raise ModelError(f"{index}: wanted a weight_map from tensors to files of the same folder")
    return sorted(set(shards.values()))


def _today(name: str) -> str:
    stem, _, part = name.rpartition(".")
    return f"{stem}.{_OLD_NAMES.get(part, part)}" if stem else name
