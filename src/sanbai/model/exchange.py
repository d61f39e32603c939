"""Models from elsewhere in, and any model out: Hugging Face folders, copied as they are.

What comes in has been read first: its headers against the architecture, its tokenizer. Its files are then copied, not
written anew, so that import and export together change no byte, whatever the size; only files that hold data are.
Weights that a pickle could hide code in are never opened.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanbai.foundation.artifacts import MANIFEST, Artifact
from sanbai.foundation.errors import ArtifactError, ModelError, UsageError
from sanbai.foundation.files import explain_disk_errors, sha256_file
from sanbai.foundation.stage import Job, Stage, run_stage
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import StoredModel
from sanbai.model.stored_tensors import WEIGHTS_INDEX
from sanbai.text import companions
from sanbai.text.tokenizer import Tokenizer

#: The name of the stage in manifests.
IMPORT = "import"
_OTHER_FILES = ("added_tokens.json", "merges.txt", "spiece.model", "tokenizer.model", "vocab.json", "vocab.txt")


def import_model(job: Job, folder: Path) -> Artifact:
    """Copy a folder that transformers wrote into the workspace as a model.

    Its metrics say what it is (`model`, `architecture`, `parameters`, `dtype`), and in `tokenizer` and `chat` whether
    it can be given text and conversations; where not, why.

    Raises:
        ModelError: unknown architecture or setting, a missing, surplus or misshapen tensor, a pickle.
        ArtifactError: `tokenizer.json` or a file beside it is damaged.
    """
    stored = StoredModel.open(folder)
    files = {path.name: path for path in stored.tensors.files}
    for name in ("config.json", WEIGHTS_INDEX, *companions.FILES, *_OTHER_FILES):
        if (folder / name).is_file():
            files[name] = folder / name
    metrics = {
        "model": stored.kind,
        "architecture": stored.architecture,
        "parameters": sum(parameter.numel() for parameter in stored.model.parameters()),
        "dtype": str(stored.dtype).removeprefix("torch."),
        **_look_at_tokenizer(folder, stored),
    }

    def build(stage: Stage) -> Mapping[str, Any]:
        for step, (name, path) in enumerate(sorted(files.items()), start=1):
            shutil.copyfile(path, stage.folder / name)
            stage.run.record(step, bytes=path.stat().st_size)
        stage.licences.append(f"imported from {folder.resolve().name}: its maker's licence")
        return metrics

    return run_stage(
        job,
        kind="model",
        name=IMPORT,
        recipe={},
        parents={},
        seed=0,
        floor="model",
        num_steps=len(files),
        build=build,
        inputs={name: sha256_file(path) for name, path in sorted(files.items())},
    )


def _look_at_tokenizer(folder: Path, stored: StoredModel) -> dict[str, str]:
    """Return what can be said to the model: `tokenizer` and `chat`, each `own` or a reason or substitute."""
    if not (folder / "tokenizer.json").is_file():
        return {
            "tokenizer": "none: there is no tokenizer.json; it can be exported, not trained or served",
            "chat": "none",
        }
    try:
        tokenizer = Tokenizer.load(folder)
    except ArtifactError as error:
        return {"tokenizer": f"none: {error}", "chat": "none"}
    if tokenizer.vocab_size > stored.model.config.vocab_size:
        raise ModelError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size} ids, its embedding {stored.model.config.vocab_size} "
            "rows; it is another model's tokenizer"
        )
    if not isinstance(stored.model, LanguageModel):
        return {"tokenizer": "own", "chat": f"none: {stored.kind} knows no conversation"}
    return {"tokenizer": "own", "chat": "own" if tokenizer.knows_turns else "turns between end-of-text tokens"}


def export_model(artifact: Artifact, folder: Path) -> None:
    """Copy a model into a folder that transformers, vLLM and llama.cpp read; the folder appears whole or not at all.

    Raises:
        UsageError: the folder exists and is not empty.
        ArtifactError: a file of the model is damaged.
        ResourceError: no space or no permission.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not empty; name a new folder")
    artifact.verify()
    folder = folder.absolute()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    with explain_disk_errors(folder):
        try:
            partial.mkdir(parents=True)
            for name in artifact.manifest["files"]:
                if name != MANIFEST:
                    (partial / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(artifact.path / name, partial / name)
            if folder.exists():
                folder.rmdir()
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
