"""Artifacts: immutable folders, each made by one stage, whole or absent, named by what went into them.

`artifacts/<kind>-<12 hex>/manifest.json` says what it is, what made it, and the size and SHA-256 of every file.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanbai.foundation.errors import ArtifactError, DataError
from sanbai.foundation.files import canonical_json, read_json, sha256_file

MANIFEST = "manifest.json"
ID_DIGITS = 12


@dataclass(frozen=True)
class Artifact:
    """One finished folder; read its files through `file`, which checks them first."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`<kind>-<12 hex>`: the folder's name, and how people and rows refer to it."""
        return self.path.name

    @property
    def kind(self) -> str:
        """What it is: corpus, shards, tokenizer, model, snapshot or report."""
        return str(self.manifest["kind"])

    @property
    def id(self) -> str:
        """SHA-256 over everything that determined the content, 64 hexadecimal digits."""
        return str(self.manifest["id"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The numbers that its stage reported."""
        metrics: Mapping[str, Any] = self.manifest["metrics"]
        return metrics

    def file(self, name: str) -> Path:
        """Return the path of one file, checked against the manifest once a process.

        Raises:
            ArtifactError: not in the manifest, absent, truncated or altered.
        """
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise ArtifactError(
                f"{self.path}: holds no file {name}; it holds {', '.join(sorted(self.manifest['files']))}"
            )
        _verify(self.path / name, int(entry["bytes"]), str(entry["sha256"]))
        return self.path / name

    def verify(self) -> None:
        """Check every file against the manifest.

        Raises:
            ArtifactError: the first one that is absent, truncated or altered.
        """
        for name in self.manifest["files"]:
            self.file(name)


@functools.lru_cache(maxsize=4096)
def _verify(path: Path, num_bytes: int, sha256: str) -> None:
    advice = _advice(path.parent)
    if not path.is_file():
        raise ArtifactError(f"{path}: the file is missing; {advice}")
    found_bytes = path.stat().st_size
    if found_bytes != num_bytes:
        raise ArtifactError(f"{path}: {found_bytes} bytes, but the manifest says {num_bytes}; {advice}")
    if (found := sha256_file(path)) != sha256:
        raise ArtifactError(f"{path}: SHA-256 {found[:12]}..., but the manifest says {sha256[:12]}...; {advice}")


def _advice(folder: Path) -> str:
    return f"delete {folder} and give the command again to make it anew"


def artifact_id(kind: str, recipe: object, parents: Mapping[str, str], seed: int, source: str) -> str:
    """Return the id of what a stage would make: SHA-256 over all that determines it.

    Args:
        kind: the artifact's kind.
        recipe: the resolved sections that the stage reads, as plain JSON values.
        parents: role -> id of each artifact it is made from.
        seed: the recipe's seed.
        source: fingerprint of the code of the stage's floor and those below.
    """
    determined_by = {"kind": kind, "recipe": recipe, "parents": dict(parents), "seed": seed, "source": source}
    return hashlib.sha256(canonical_json(determined_by).encode()).hexdigest()


def load_artifact(path: Path) -> Artifact:
    """Open a finished artifact folder.

    Raises:
        ArtifactError: no manifest, or one that is not ours.
    """
    try:
        manifest = read_json(path / MANIFEST)
    except DataError as error:
        raise ArtifactError(f"{path}: not an artifact: {error}; {_advice(path)}") from None
    if not isinstance(manifest, dict) or not {"kind", "id", "files", "metrics"} <= manifest.keys():
        raise ArtifactError(f"{path / MANIFEST}: lacks kind, id, files or metrics; {_advice(path)}")
    return Artifact(path, manifest)


def list_files(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return name -> {bytes, sha256} of every file below `folder`, sorted, the manifest left out."""
    return {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
