"""Replicas behind a gateway; on a Ray cluster of two nodes, of which one is killed under load."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.serving.conftest import Site, ask, make_model, read_events, running_site

from sanbai.feedback.accounts import add_account, find_api_key, make_api_key
from sanbai.feedback.registry import RegisteredModel, add_model, serve
from sanbai.feedback.store import Store
from sanbai.foundation.errors import ResourceError
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.serving.app import REPLICA_TABLE, create_replica
from sanbai.serving.cluster import NODE_HEADER, Deployment, deploy, replicas
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import loopback_server
from sanbai.text.tokenizer import Tokenizer

HAS_RAY = importlib.util.find_spec("ray") is not None
SETTINGS = ServeRecipe(sampling=Sampling(max_new_tokens=24), max_running=8, max_waiting=200)
ASKED = 60
NEW_TOKENS = 200


def test_a_replica_answers_programs_alone(site: Site) -> None:
    key = site.key()
    app = create_replica(site.workspace, site.store, settings=SETTINGS)
    with loopback_server(app) as url, httpx2.Client(base_url=url, timeout=30) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        answer = client.post("/v1/completions", json={"model": "sanbai", "prompt": "Anna", "max_tokens": 3})
        assert answer.status_code == 200
        assert client.get("/ready").json()["status"] == "ready"
        for path in ("/", "/sign-in", "/api/conversations", "/api/rounds"):
            assert client.get(path).status_code == 404
    assert all(
        row.path.startswith(("/v1/", "/tok", "/detok", "/metrics", "/openapi.json", "/health", "/ready"))
        for row in REPLICA_TABLE
    )


def test_a_replica_that_starts_does_not_end_the_gateways_answers(site: Site) -> None:
    """A server that starts alone takes running answers for those of a killed one."""
    client = site.client()
    asked = ask(client, seed=4)
    with loopback_server(create_replica(site.workspace, site.store, settings=SETTINGS)):
        assert read_events(client, asked["generations"][0]["id"])[-1]["state"] == "done"


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_one_line_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"sanbai\[cluster\]"):
        deploy(Deployment(tmp_path, "", SETTINGS), address="local")


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    memory = {"num_cpus": 1, "object_store_memory": 2**27}
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=memory | {"include_dashboard": False}))
    try:
        yield cluster, patiently(lambda: cluster.add_node(**memory))
    finally:
        ray.shutdown()
        cluster.shutdown()


def patiently(start: Callable[[], Any]) -> Any:
    """Start a node; Ray gives it thirty seconds, in which a busy machine may not manage."""
    for _ in range(3):
        with contextlib.suppress(Exception):
            return start()
    return start()


@pytest.mark.long
@pytest.mark.skipif(not HAS_RAY, reason="needs the extra cluster")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_node_killed_under_load_loses_no_request(
    two_nodes: tuple[Any, Any], tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer comes, and is the one that a server alone gives; streams that had begun there end in an error."""
    cluster, second = two_nodes
    workspace = Workspace(tmp_path / "shared")
    workspace.create()
    store = Store(workspace.database_url)
    store.create()
    add_model(store, RegisteredModel("model-0", "policy", make_model(workspace, tokenizer, 0)))
    serve(store, "model-0", round=0, actor="test")
    key = make_api_key(store, add_account(store, "anna", "user"), ("v1",))
    with loopback_server(create_replica(workspace, store, settings=SETTINGS)) as url:
        headers = {"Authorization": f"Bearer {key}"}
        said = [
            httpx2.post(f"{url}/v1/completions", json=ask_for(number), headers=headers, timeout=120)
            for number in range(10)
        ]
        expected = [one.json()["choices"][0]["text"] for one in said]
    wanted = Deployment(workspace.root, workspace.database_url, SETTINGS, replicas=2)
    with replicas(store, wanted, address=cluster.address) as (settings, gateways_key):
        monkeypatch.setenv("BACKEND_KEY", gateways_key)
        wait_for_both(settings.backend, gateways_key, {cluster.head_node.node_id, second.node_id})
        with running_site(
            tmp_path / "gateway",
            tokenizer,
            models=0,
            backend=settings.backend,
            backend_key_variable="BACKEND_KEY",
            backend_retries=settings.backend_retries,
            max_running=100,
        ) as gateway:
            whole, streamed = load(gateway.url, gateway.key(), kill=lambda: kill_node(cluster, second))
    assert find_api_key(store, gateways_key) is None, "the gateway's key outlives it"
    store.close()
    right = [expected[number % 10] for number in range(ASKED)]
    assert whole == right
    broken = [number for number, (_, failed) in enumerate(streamed) if failed]
    assert broken, "the node died with nobody on it; the test shows nothing"
    for number, (text, failed) in enumerate(streamed):
        assert right[number].startswith(text) if failed else text == right[number]
    assert all(streamed[number][0] for number in broken), "what had not begun could have been tried again"


def wait_for_both(url: str, key: str, nodes: set[str]) -> None:
    """Ask Ray's proxy until it has passed a request on to each node."""
    seen: set[str] = set()
    with httpx2.Client(headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        for _ in range(200):
            response = client.get(f"{url}/models")
            assert response.status_code == 200, response.text
            seen.add(response.headers[NODE_HEADER])
            if seen == nodes:
                return
            time.sleep(0.05)
    raise AssertionError(f"only {seen} of {nodes} ever answered")


def kill_node(cluster: Any, node: Any) -> None:
    """As a machine dies: every process of it at once."""
    raylet = node.all_processes["raylet"][0].process.pid
    children = [path.read_text().split() for path in Path(f"/proc/{raylet}/task").glob("*/children")]
    for process in itertools.chain.from_iterable(children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


def ask_for(number: int, **more: Any) -> dict[str, Any]:
    """One of ten questions."""
    question = {"model": "sanbai", "prompt": f"{number % 10} + 12", "seed": number % 10}
    return question | {"temperature": 1.0, "max_tokens": NEW_TOKENS} | more


def load(url: str, key: str, *, kill: Callable[[], None]) -> tuple[list[str], list[tuple[str, bool]]]:
    """Ask for whole answers and for as many streams, 8 at a time each; kill when streams have shown a hundred pieces.

    Returns:
        The whole answers' texts; the streams', each with whether it ended in an error.
    """
    begun = threading.Semaphore(0)
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=120) as client:

        def stream(number: int) -> tuple[str, bool]:
            text = ""
            try:
                for part in client.completions.create(**ask_for(number, stream=True)):
                    text += part.choices[0].text
                    begun.release()
            except openai.APIError:
                return text, True
            return text, False

        with ThreadPoolExecutor(8) as some, ThreadPoolExecutor(8) as others:
            asked = [some.submit(client.completions.create, **ask_for(number)) for number in range(ASKED)]
            following = [others.submit(stream, number) for number in range(ASKED)]
            for _ in range(100):  # pieces of streams
                begun.acquire()
            kill()
            return [one.result().choices[0].text for one in asked], [one.result() for one in following]
