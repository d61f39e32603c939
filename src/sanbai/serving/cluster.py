"""Replicas of the API on a Ray cluster, behind one gateway. Needs the extra `cluster`.

Each replica is an engine of its own with the routes for programs; workspace and database must be the same for all, on a
shared disk and PostgreSQL where there are several machines. Ray Serve starts replicas, spreads them over the nodes,
replaces those that die, and shares the requests out. The gateway before them keeps accounts, the chat and its streams,
and sends a request again whose replica died before the first word (`serve.backend_retries`).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sanbai.feedback.accounts import (
    add_account,
    find_account,
    find_api_key,
    list_accounts,
    make_api_key,
    revoke_api_key,
)
from sanbai.feedback.store import Store
from sanbai.foundation.errors import ResourceError
from sanbai.foundation.ray_cluster import first_line, import_ray, join_cluster
from sanbai.foundation.workspace import Workspace
from sanbai.serving.app import create_replica
from sanbai.serving.recipe import ServeRecipe

APPLICATION = "sanbai"
ACCOUNT = "gateway"
HEALTH_SECONDS = 2.0
#: Ray needs some seconds to see that a node is gone; until then every other attempt may meet a dead replica.
CLUSTER_RETRIES = 6
#: Ray's proxy prefers replicas on its own node, and the others idle until those are full; here all have the same to do.
EVEN = {"RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING": "0"}
NODE_HEADER = "x-sanbai-node"


@dataclass(frozen=True)
class Deployment:
    """What runs on the cluster.

    Attributes:
        root: the workspace's folder, as every node sees it.
        database: URL of the shared database.
        settings: of each replica's engine.
        replicas: how many.
        cpus: of each.
        model: a registered model instead of the one in service.
    """

    root: Path
    database: str
    settings: ServeRecipe
    replicas: int = 2
    cpus: float = 1.0
    model: str = ""


class Replica:
    """One engine; lives in a process of its own on some node."""

    def __init__(self, wanted: Deployment) -> None:
        """Load nothing yet: the application's start does."""
        workspace = Workspace(wanted.root, wanted.database)
        self._app = create_replica(
            workspace, Store(workspace.database_url), settings=wanted.settings, model=wanted.model
        )
        ray = import_ray()
        self._app.add_middleware(Signed, node=ray.get_runtime_context().get_node_id())

    def __serve_build_asgi_app__(self) -> Starlette:
        """Return the application, for Ray to run."""
        return self._app

    def check_health(self) -> None:
        """Tell Ray to replace this process where the engine is stuck or has no model."""
        if why := self._app.state.house.engine.unready_because():
            raise RuntimeError(why)


class Signed:
    """ASGI middleware: every response says which node it comes from, in `x-sanbai-node`."""

    def __init__(self, app: ASGIApp, *, node: str) -> None:
        self._app, self._node = app, node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and sign."""

        async def send_signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[NODE_HEADER] = self._node
            await send(message)

        await self._app(scope, receive, send_signed)


def deploy(wanted: Deployment, *, address: str, port: int = 0) -> str:
    """Start or renew the replicas, and wait until they answer.

    Args:
        wanted: what to run.
        address: of a running cluster, `HOST:6379` or `auto`; `local` starts one here for as long as this process lives.
        port: of Ray's proxy on the head node's own address; 0 takes a free one.

    Returns:
        The base URL for `serve.backend`.

    Raises:
        ResourceError: Ray is not installed, the cluster cannot be reached, or has no room for the replicas.
    """
    ray, serve = import_ray(), _import_serve()
    try:
        join_cluster(ray, address)
        port = port or _free_port()
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": "127.0.0.1", "port": port},
            controller_options={"runtime_env": {"env_vars": EVEN}},  # its proxy inherits them
        )
        application = _application(serve, wanted)
        serve.run(application, name=APPLICATION, route_prefix="/")
    except (ConnectionError, TimeoutError, RuntimeError) as error:
        raise ResourceError(f"{address}: no replicas on this Ray cluster: {first_line(error)}") from None
    return f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def replicas(store: Store, wanted: Deployment, *, address: str) -> Iterator[tuple[ServeRecipe, str]]:
    """Run replicas for as long as the block lasts.

    Args:
        store: the shared one.
        wanted: what to run.
        address: as `deploy`.

    Yields:
        The settings of the gateway before them, and its key, which works until the block ends.

    Raises:
        ResourceError: as `deploy`.
    """
    if ACCOUNT not in {account.name for account in list_accounts(store)}:
        add_account(store, ACCOUNT, "user", source="simulated")
    account = find_account(store, ACCOUNT)
    key = make_api_key(store, account, ("v1",))
    try:
        url = deploy(wanted, address=address)
        retries = max(wanted.settings.backend_retries, CLUSTER_RETRIES)
        yield wanted.settings.model_copy(update={"backend": url, "backend_retries": retries}), key
    finally:
        if (known := find_api_key(store, key)) is not None:
            revoke_api_key(store, known)
        withdraw()


def withdraw() -> None:
    """End the replicas and leave the cluster."""
    ray, serve = import_ray(), _import_serve()
    serve.shutdown()
    ray.shutdown()


def _application(serve: Any, wanted: Deployment) -> Any:
    deployment = serve.deployment(
        name="api",
        num_replicas=wanted.replicas,
        ray_actor_options={"num_cpus": wanted.cpus},
        # What waits, waits in Ray's proxy for whichever replica is free first, and dies with none of them.
        max_ongoing_requests=wanted.settings.max_running,
        graceful_shutdown_timeout_s=wanted.settings.shutdown_seconds,
        health_check_period_s=HEALTH_SECONDS,
    )
    return deployment(serve.ingress()(Replica)).bind(wanted)


def _import_serve() -> Any:
    from ray import serve  # noqa: PLC0415 - only who serves on a cluster has it

    return serve


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number: int = taken.getsockname()[1]
    return number
