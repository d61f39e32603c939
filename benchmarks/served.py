"""A server of a random model in a process of its own, for the benchmarks that speak to it as a client would."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sanbai.feedback.accounts import add_account, make_api_key
from sanbai.feedback.registry import serve
from sanbai.feedback.store import Store
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.workspace import Workspace
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import save_model
from sanbai.serving.server import open_socket
from sanbai.text.tokenizer import Tokenizer, train_tokenizer
from sanbai.world.documents import documents
from sanbai.world.recipe import WorldRecipe
from sanbai.world.village import make_village


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    port: int
    key: str
    """Of an ordinary account."""
    admin_key: str
    process: subprocess.Popen[bytes]


def make_tokenizer(vocab_size: int) -> Tokenizer:
    """Return a tokenizer of the tiny world's text; it may find fewer tokens than asked for."""
    village = make_village(0, WorldRecipe())
    texts = (document.text for document in documents(village, 0, num_bytes=400_000, recipe=WorldRecipe()))
    return train_tokenizer(texts, vocab_size=vocab_size)


def make_folder(folder: Path, config: ModelConfig, tokenizer: Tokenizer, *, seed: int = 0) -> Path:
    """Write a model of random weights as a Hugging Face folder; its vocabulary may be larger than the tokenizer's."""
    folder.mkdir(parents=True)
    save_model(LanguageModel(config, torch_generator(seed)), folder, tokenizer)
    return folder


def import_folder(workspace: Path, folder: Path, name: str) -> None:
    """Register a folder's model in a workspace, as a user would."""
    _sanbai("model", "import", str(folder), "--name", name, "--workspace", str(workspace))


def put_into_service(workspace: Path, name: str) -> None:
    """Make a registered model the one that serves; a running server takes it up within seconds."""
    with contextlib.closing(Store(Workspace(workspace).database_url)) as store:
        serve(store, name, round=0, actor="benchmark")


@contextlib.contextmanager
def running_server(workspace: Path, recipe: Mapping[str, object], *, threads: int, model: str = "") -> Iterator[Served]:
    """Serve a workspace for as long as the block lasts.

    Args:
        workspace: whose served model answers.
        recipe: of the section `[serve]`.
        threads: of each product.
        model: a registered name instead.
    """
    path = workspace.parent / "serve.toml"
    lines = [f"{name} = {str(value).lower() if isinstance(value, bool) else value!r}" for name, value in recipe.items()]
    path.write_text("\n".join(["[serve]", *lines]) + "\n", encoding="utf-8")
    with contextlib.closing(Store(Workspace(workspace).database_url)) as store:
        keys = [make_api_key(store, add_account(store, f"bench-{role}", role)) for role in ("user", "admin")]
    with open_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    arguments = ["serve", "--workspace", str(workspace), "--recipe", str(path), "--port", str(port)]
    command = [*_command(), *arguments, *(["--model", model] if model else [])]
    log = (workspace.parent / "serve.log").open("wb")
    process = subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/ready", process)
        yield Served(f"http://127.0.0.1:{port}", port, keys[0], keys[1], process)
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"the server left with {process.returncode}; see serve.log")


def _command() -> list[str]:
    return [str(Path(sys.executable).with_name("sanbai"))]


def _sanbai(*arguments: str) -> None:
    subprocess.run([*_command(), *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
