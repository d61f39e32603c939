"""Named tensors as one safetensors file, written tensor by tensor: what is saved is never in memory twice.

The file: the header's length in 8 bytes, little-endian; the header, a JSON object from names to dtype, shape and place,
padded with spaces to 8 bytes; then the numbers. Wider dtypes come first, equal ones by name. These are the bytes that
the library `safetensors` gives for the same tensors, which would hold all of them once more to give them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanbai.foundation.files import open_atomic

_WORDS = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""The format's word for each dtype; the later come first in a file."""
_RANKS = {dtype: rank for rank, dtype in enumerate(_WORDS)}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str]) -> None:
    """Write a file so that a reader sees the old one or the new, never a part.

    Args:
        path: in a folder that exists.
        tensors: on any device, contiguous or not; one at a time is copied where it must be.
        metadata: texts for the header.

    Raises:
        ResourceError: no space or no permission.
    """
    names = sorted(tensors, key=lambda name: (-_RANKS[tensors[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name in names:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _WORDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open_atomic(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            flat = tensors[name].detach().cpu().contiguous().view(-1)
            file.write(flat.view(torch.uint8).numpy().data)
