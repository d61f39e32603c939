"""Replicas behind a gateway; on a Ray cluster of two nodes, of which one is killed under load."""

from __future__ import annotations

import contextlib
import functools
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
import pytest
from tests.serving.conftest import Site, ask, make_model, read_events, running_site

from sanbai.feedback.accounts import add_account, find_api_key, make_api_key
from sanbai.feedback.registry import RegisteredModel, add_model, serve
from sanbai.feedback.store import Store
from sanbai.foundation.errors import ResourceError
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.serving.app import REPLICA_TABLE, create_replica
from sanbai.serving.cluster import Deployment, deploy, replicas
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import loopback_server
from sanbai.text.tokenizer import Tokenizer

HAS_RAY = importlib.util.find_spec("ray") is not None
SETTINGS = ServeRecipe(sampling=Sampling(max_new_tokens=24), max_running=8, max_waiting=200)
ASKED = 60


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
        row.path.startswith(("/v1/", "/tok", "/detok", "/metrics", "/health", "/ready")) for row in REPLICA_TABLE
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

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 2**27}
    )
    try:
        yield cluster, cluster.add_node(num_cpus=1, object_store_memory=2**27)
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.long
@pytest.mark.skipif(not HAS_RAY, reason="needs the extra cluster")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_node_killed_under_load_loses_no_request(
    two_nodes: tuple[Any, Any], tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the gateway every answer comes, and is the one that a server alone gives; straight to Ray some fail."""
    cluster, second = two_nodes
    workspace = Workspace(tmp_path / "shared")
    workspace.create()
    store = Store(workspace.database_url)
    store.create()
    add_model(store, RegisteredModel("model-0", "policy", make_model(workspace, tokenizer, 0)))
    serve(store, "model-0", round=0, actor="test")
    key = make_api_key(store, add_account(store, "anna", "user"), ("v1",))
    with loopback_server(create_replica(workspace, store, settings=SETTINGS)) as url:
        expected = [answer(url, key, number) for number in range(10)]
    wanted = Deployment(workspace.root, workspace.database_url, SETTINGS, replicas=2)
    with replicas(store, wanted, address=cluster.address) as (settings, gateways_key):
        monkeypatch.setenv("BACKEND_KEY", gateways_key)
        with running_site(
            tmp_path / "gateway",
            tokenizer,
            models=0,
            backend=settings.backend,
            backend_key_variable="BACKEND_KEY",
            backend_retries=settings.backend_retries,
            max_running=100,
        ) as gateway:
            kill = functools.partial(kill_node, cluster, second)
            ours, rays = (gateway.url, gateway.key()), (settings.backend.removesuffix("/v1"), key)
            done, straight = load(ours, rays, kill=kill)
    assert find_api_key(store, gateways_key) is None, "the gateway's key outlives it"
    store.close()
    assert None in straight, "the node died with nobody on it; the test shows nothing"
    assert len(done) == ASKED
    assert all(text == expected[number % 10] for number, text in enumerate(done))


def kill_node(cluster: Any, node: Any) -> None:
    """As a machine dies: every process of it at once."""
    raylet = node.all_processes["raylet"][0].process.pid
    children = [path.read_text().split() for path in Path(f"/proc/{raylet}/task").glob("*/children")]
    for process in itertools.chain.from_iterable(children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


def answer(url: str, key: str, number: int) -> str | None:
    """What a server says to one of ten questions; None where it fails."""
    body = {"model": "sanbai", "prompt": f"{number} + 12", "seed": number, "temperature": 1.0, "max_tokens": 60}
    try:
        response = httpx2.post(
            f"{url}/v1/completions", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=120
        )
    except httpx2.TransportError:
        return None
    return str(response.json()["choices"][0]["text"]) if response.status_code == 200 else None


def load(
    ours: tuple[str, str], rays: tuple[str, str], *, kill: Callable[[], None]
) -> tuple[list[str | None], list[str | None]]:
    """Ask the gateway and Ray's own proxy, as often and 8 at a time each; kill after a quarter.

    Args:
        ours: address and key of the gateway.
        rays: of the proxy.
        kill: what happens in between.

    Returns:
        The answers of both.
    """
    begun = threading.Semaphore(0)

    def through(number: int) -> str | None:
        begun.release()
        return answer(*ours, number % 10)

    with ThreadPoolExecutor(8) as patient, ThreadPoolExecutor(8) as hasty:
        asked = [patient.submit(through, number) for number in range(ASKED)]
        bare = [hasty.submit(answer, *rays, number % 10) for number in range(ASKED)]
        for _ in range(ASKED // 4):
            begun.acquire()
        time.sleep(0.05)
        kill()
        return [one.result() for one in asked], [one.result() for one in bare]
