from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from tests.serving.conftest import make_model, read_events

from sanbai.feedback.accounts import add_account, find_account, make_api_key
from sanbai.feedback.registry import RegisteredModel, add_model, serve
from sanbai.feedback.store import Store
from sanbai.foundation.errors import ResourceError, UsageError
from sanbai.foundation.workspace import Workspace
from sanbai.serving.app import create_app
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import base_url_of, first_administrator, loopback_server, open_socket
from sanbai.serving.welcome import Welcome
from sanbai.text.tokenizer import Tokenizer

SERVER = """
import logging, sys, time
from pathlib import Path
from sanbai.feedback.store import Store
from sanbai.foundation.workspace import Workspace
from sanbai.generation.engine import ContinuousEngine
from sanbai.generation.sampling import Sampling
from sanbai.serving import engine
from sanbai.serving.app import create_app
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import base_url_of, open_socket, serve
from sanbai.serving.welcome import Welcome

step = ContinuousEngine.step
def slow(self):
    time.sleep(0.1)
    return step(self)
ContinuousEngine.step = slow
engine.ServedModel.stop_ids = frozenset()  # the answer takes twenty seconds
logging.basicConfig(level=logging.WARNING)
workspace = Workspace(Path(sys.argv[1]))
store = Store(workspace.database_url)
store.create()
settings = ServeRecipe(sampling=Sampling(max_new_tokens=200), shutdown_seconds=2)
listener = open_socket("127.0.0.1", 0)
print(base_url_of(listener), flush=True)
serve(create_app(workspace, store, settings=settings, welcome=Welcome("")), "127.0.0.1", 0, listener=listener)
print("left", flush=True)
"""


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"^127.0.0.1:{port}: .* choose another --port$"):
            open_socket("127.0.0.1", port)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
def test_other_machines_are_refused_unless_that_is_said(host: str) -> None:
    with pytest.raises(UsageError, match=re.escape(host) + ".*allow_remote"):
        open_socket(host, 0)


def test_the_address_is_one_that_a_browser_here_can_open() -> None:
    with open_socket("127.0.0.1", 0) as listener:
        assert base_url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    with open_socket("0.0.0.0", 0, allow_remote=True) as listener:
        assert base_url_of(listener).startswith("http://127.0.0.1:")


def test_the_first_administrator_is_made_once(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'sanbai.db'}")
    store.create()
    add_account(store, "robot", "labeler", source="simulated")
    url = first_administrator(store, "http://127.0.0.1:8300")
    assert re.fullmatch(r"http://127\.0\.0\.1:8300/sign-in\?token=[\w-]{43}", url)
    assert find_account(store, "admin").role == "admin"
    assert first_administrator(store, "http://127.0.0.1:8300") == ""
    store.close()


@contextlib.contextmanager
def started(workspace: Workspace) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the server in a process of its own and wait until it answers; it is gone when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(workspace.root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        try:
            url = process.stdout.readline().strip()
            deadline = time.monotonic() + 60
            while not answers(url):
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.05)
            yield process, url
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/ready", timeout=2).status_code == 200
    except httpx2.TransportError:
        return False


def read_until_gone(client: httpx2.Client, generation: str, leave: Callable[[], None]) -> float:
    """Follow an answer, tell the server to leave after a while, and read on to the end; returns when it was told."""
    began, told = time.monotonic(), 0.0
    with (
        contextlib.suppress(httpx2.TransportError),
        client.stream("GET", f"/api/generations/{generation}/events") as response,
    ):
        for _ in response.iter_lines():
            if not told and time.monotonic() - began > 2.5:
                leave()
                told = time.monotonic()
    assert told
    return told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_is_told_to_leave_or_killed_loses_no_answer(
    tmp_path: Path, tokenizer: Tokenizer, number: signal.Signals
) -> None:
    workspace = Workspace(tmp_path)
    workspace.create()
    store = Store(workspace.database_url)
    store.create()
    add_model(store, RegisteredModel("model-0", "policy", make_model(workspace, tokenizer, 0)))
    serve(store, "model-0", round=0, actor="test")
    key = make_api_key(store, add_account(store, "anna", "user"))
    headers = {"Authorization": f"Bearer {key}"}
    with started(workspace) as (process, url):
        with httpx2.Client(base_url=url, headers=headers, timeout=30) as client:
            conversation = client.post("/api/conversations", json={}).json()["id"]
            asked = client.post(f"/api/conversations/{conversation}/messages", json={"content": "?", "seed": 4}).json()
            generation = asked["generations"][0]["id"]
            asked_to_leave = read_until_gone(client, generation, lambda: os.kill(process.pid, number))
        code = process.wait(timeout=15)
        assert time.monotonic() - asked_to_leave < 10
    assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)

    app = create_app(workspace, store, settings=ServeRecipe(), welcome=Welcome(""))
    with loopback_server(app) as url, httpx2.Client(base_url=url, headers=headers, timeout=30) as client:
        kept = client.get(f"/api/conversations/{conversation}").json()["messages"][-1]
        assert (kept["role"], kept["state"]) == ("assistant", "interrupted")
        assert kept["content"]
        assert [event["kind"] for event in read_events(client, generation)] == ["text", "done"]
    store.close()
