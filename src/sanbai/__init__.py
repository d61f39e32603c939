"""Sanbai: a ChatGPT that you own end to end.

In Python: `load`, `load_tokenizer`, `generate` and `save` (`api.py`). They are imported when they are first used, so
that `import sanbai` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sanbai.api import generate, load, load_tokenizer, save

__all__ = ["generate", "load", "load_tokenizer", "save"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sanbai' has no attribute {name!r}")
    return getattr(importlib.import_module("sanbai.api"), name)
