from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from starlette.applications import Starlette

from sanbai.feedback.accounts import Role, add_account, make_api_key, make_sign_in_token
from sanbai.feedback.registry import RegisteredModel, add_model, serve
from sanbai.feedback.store import Store
from sanbai.foundation.artifacts import MANIFEST, list_files
from sanbai.foundation.files import write_json_atomic
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import save_model
from sanbai.serving.app import create_app
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import loopback_server
from sanbai.serving.welcome import Example, Welcome
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

TEXTS = ["Anna bakes bread in the mill. Her son likes painting, and so does Anna. 村里有一座磨坊。😀 12 + 30 = 42\n"]
CONFIG = ModelConfig(
    num_layers=1,
    width=32,
    num_heads=2,
    num_kv_heads=2,
    head_width=16,
    feed_forward_width=48,
    max_positions=256,
    tied_embeddings=False,
)
WELCOME = Welcome("Good day.", (Example("A riddle", "A mother likes painting. Does her son?"), Example("Sum", "1+2?")))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 20, vocab_size=320)


def make_artifact(workspace: Workspace, kind: str, name: str, files: dict[str, str | bytes]) -> str:
    """Write a finished artifact of plain files; returns its name."""
    folder = workspace.artifacts / f"{kind}-{name}"
    for file, content in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return finish_artifact(folder, kind)


def finish_artifact(folder: Path, kind: str) -> str:
    manifest = {"kind": kind, "id": folder.name, "files": list_files(folder), "metrics": {}, "parents": {}}
    write_json_atomic(folder / MANIFEST, manifest)
    return folder.name


def make_model(workspace: Workspace, tokenizer: Tokenizer, number: int, *, context: int = 256) -> str:
    """Write a tiny random model; returns its artifact's name."""
    folder = workspace.artifacts / f"model-{number:012x}"
    folder.mkdir(parents=True)
    torch.manual_seed(number)
    config = CONFIG.model_copy(update={"max_positions": context}).with_vocabulary(tokenizer.vocab_size)
    save_model(LanguageModel(config), folder, tokenizer)
    return finish_artifact(folder, "model")


@dataclass
class Site:
    """A running server with its store; `client` signs in by the front door."""

    workspace: Workspace
    store: Store
    app: Starlette
    url: str
    clients: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _made: int = 0

    def account(self, role: Role = "user", name: str = "") -> str:
        self._made += 1
        return add_account(self.store, name or f"{role}{self._made}", role).name

    def client(self, role: Role = "user", name: str = "") -> httpx2.Client:
        from sanbai.feedback.accounts import find_account

        token = make_sign_in_token(self.store, find_account(self.store, self.account(role, name)))
        client = self.stranger()
        signed = client.post("/api/sign-in", json={"token": token})
        assert signed.status_code == 200, signed.text
        client.headers["X-CSRF-Token"] = signed.json()["csrf"]
        return client

    def stranger(self) -> httpx2.Client:
        return self.clients.enter_context(httpx2.Client(base_url=self.url, timeout=30))

    def key(self, role: Role = "user", scopes: tuple[Any, ...] = ("v1", "api")) -> str:
        from sanbai.feedback.accounts import find_account

        return make_api_key(self.store, find_account(self.store, self.account(role)), scopes)

    def program(self, role: Role = "user", scopes: tuple[Any, ...] = ("v1", "api")) -> httpx2.Client:
        client = self.stranger()
        client.headers["Authorization"] = f"Bearer {self.key(role, scopes)}"
        return client


@contextlib.contextmanager
def running_site(
    folder: Path, tokenizer: Tokenizer, *, models: int = 1, context: int = 256, **settings: Any
) -> Iterator[Site]:
    workspace = Workspace(folder)
    workspace.create()
    store = Store(workspace.database_url)
    store.create()
    for number in range(models):
        artifact = make_model(workspace, tokenizer, number, context=context)
        add_model(store, RegisteredModel(f"model-{number}", "policy", artifact, round=number))
    if models:
        serve(store, "model-0", round=0, actor="test")
    recipe = ServeRecipe(sampling=Sampling(temperature=1.0, max_new_tokens=24), **settings)
    app = create_app(workspace, store, settings=recipe, welcome=WELCOME)
    with loopback_server(app) as url:
        site = Site(workspace, store, app, url)
        with site.clients:
            yield site
    store.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Iterator[Site]:
    """One server for all tests that do not change what serves."""
    with running_site(tmp_path_factory.mktemp("site"), tokenizer, max_active_per_account=100) as made:
        yield made


def read_events(client: httpx2.Client, generation_id: str, *, after: int | None = None) -> list[dict[str, Any]]:
    """Follow a generation to its end; each event as {"seq", "kind", **data}."""
    query = f"?after={after}" if after is not None else ""
    events: list[dict[str, Any]] = []
    current: dict[str, Any] = {}
    with client.stream("GET", f"/api/generations/{generation_id}/events{query}") as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                current["seq"] = int(value)
            elif name == "event":
                current["kind"] = value
            elif name == "data":
                events.append(current | json.loads(value))
                current = {}
    return events


def ask(client: httpx2.Client, content: str = "Who bakes bread?", **more: Any) -> dict[str, Any]:
    """Open a conversation and ask; returns the response's JSON with the conversation's id."""
    conversation = client.post("/api/conversations", json={}).json()["id"]
    response = client.post(f"/api/conversations/{conversation}/messages", json={"content": content, **more})
    assert response.status_code == 200, response.text
    return response.json() | {"conversation": conversation}
