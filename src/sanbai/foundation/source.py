"""The fingerprint of the code that makes an artifact: changing a floor changes the ids of what it makes."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

#: From the ground up; an artifact made on a floor depends on the source of that floor and all below it.
FLOORS = (
    "foundation",
    "text",
    "model",
    "objectives",
    "data",
    "world",
    "generation",
    "training",
    "evaluation",
    "agents",
    "feedback",
    "rounds",
    "lab",
    "serving",
    "cli",
)

SOURCE_SUFFIXES = frozenset({".py", ".css"})


@functools.cache
def source_fingerprint(floor: str, *modules: str) -> str:
    """Return SHA-256 over names and contents of the source files of `floor`, of the floors below, and of some modules.

    Args:
        floor: the uppermost floor that counts whole.
        modules: single files of floors above, relative to the package, such as `rounds/material.py`.
    """
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    paths: list[Path] = []
    for name in FLOORS[: FLOORS.index(floor) + 1]:
        paths.extend(sorted(path for path in (package / name).rglob("*") if path.suffix in SOURCE_SUFFIXES))
    paths.extend(package / module for module in modules)
    for path in paths:
        digest.update(f"{path.relative_to(package)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()
