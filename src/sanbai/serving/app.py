"""The application: one table of routes, the engine behind it, guards around it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Lifespan

from sanbai.feedback import registry
from sanbai.feedback.generations import recover_generations
from sanbai.feedback.store import Store
from sanbai.foundation.workspace import Workspace
from sanbai.serving import (
    account_routes,
    chat_routes,
    embeddings_api,
    gateway_api,
    label_routes,
    openai_api,
    page_routes,
    rounds_routes,
    score_api,
    sign_in_routes,
    text_api,
)
from sanbai.serving.chat import Chat
from sanbai.serving.engine import Engine
from sanbai.serving.gateway import Gateway
from sanbai.serving.house import House, Promote, Rollback
from sanbai.serving.idempotency import KeptAnswers
from sanbai.serving.openapi import document
from sanbai.serving.problems import Problem, not_found
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.rewards import Rewards
from sanbai.serving.routes import PROGRAMS, Call, Row, make_routes, note_failure, problem_response
from sanbai.serving.security import Guard
from sanbai.serving.welcome import Welcome
from sanbai.serving.writer import EngineWriter


def _with_document(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows and one more, at which they are described as OpenAPI does."""

    def show_document(_: Call) -> dict[str, Any]:
        """Describe what programs can ask, as OpenAPI does."""
        return document(described, version=version("sanbai"))

    described = (*rows, Row("GET", "/openapi.json", "user", show_document))
    return described


#: The pages and what they ask for.
PAGES = (
    *page_routes.ROWS,
    *sign_in_routes.ROWS,
    *chat_routes.ROWS,
    *label_routes.ROWS,
    *rounds_routes.ROWS,
    *account_routes.ROWS,
)
#: Everything that can be asked; what is not here is refused.
TABLE = _with_document((*PAGES, *openai_api.ROWS, *text_api.ROWS, *embeddings_api.ROWS, *score_api.ROWS))
#: What a replica behind a gateway answers: programs alone.
REPLICA_TABLE = tuple(row for row in TABLE if row.path.startswith((*PROGRAMS, "/health", "/ready")))
#: The same where a backend answers.
GATEWAY_TABLE = _with_document((*PAGES, *gateway_api.ROWS))


def create_app(
    workspace: Workspace,
    store: Store,
    *,
    settings: ServeRecipe,
    welcome: Welcome,
    promote: Promote | None = None,
    rollback: Rollback | None = None,
    model: str = "",
    backend_key: str = "",
) -> Starlette:
    """Make the application of one server. Its engine starts and ends with the application's lifespan.

    Args:
        workspace: where the artifacts of models and reports lie.
        store: created already.
        settings: the recipe section `[serve]`.
        welcome: what greets people in the chat.
        promote: (round, override reason or "", who) -> puts a round's policy into service; without one, the
            registry's newest policy of the round is served.
        rollback: (who) -> brings back the model that served before; without one, the registry does.
        model: name of a registered model to serve instead of the registry's.
        backend_key: of the settings' backend, instead of the environment's.

    Raises:
        UsageError: the backend's key is not in the environment.
    """
    engine = Engine(workspace, store, settings, model=model)
    gateway = Gateway(settings, key=backend_key) if settings.backend else None
    house = _make_house(workspace, store, settings, welcome, engine, gateway, promote, rollback)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(recover_generations, store)
        await (gateway.start() if gateway else run_in_threadpool(engine.start))
        try:
            yield
        finally:
            # The server has waited for its open connections by now; whoever is left has had the time.
            await (gateway.close() if gateway else run_in_threadpool(engine.close, grace_seconds=0.0))
            await run_in_threadpool(house.chat.close)
            house.grammars.close()

    return _application(house, GATEWAY_TABLE if gateway else TABLE, lifespan)


def create_replica(workspace: Workspace, store: Store, *, settings: ServeRecipe, model: str = "") -> Starlette:
    """Make the application of one of several equal servers behind a gateway: the routes for programs and an engine.

    Conversations are the gateway's: nothing is recovered here, and nothing but the registry and the keys is read.

    Args:
        workspace: where the artifacts of models lie.
        store: created already; shared by all.
        settings: the recipe section `[serve]`.
        model: name of a registered model to serve instead of the registry's.
    """
    engine = Engine(workspace, store, settings, model=model)
    house = _make_house(workspace, store, settings, Welcome(""), engine)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(engine.start)
        try:
            yield
        finally:
            await run_in_threadpool(engine.close, grace_seconds=0.0)
            house.grammars.close()

    return _application(house, REPLICA_TABLE, lifespan)


def _make_house(
    workspace: Workspace,
    store: Store,
    settings: ServeRecipe,
    welcome: Welcome,
    engine: Engine,
    gateway: Gateway | None = None,
    promote: Promote | None = None,
    rollback: Rollback | None = None,
) -> House:
    return House(
        workspace=workspace,
        store=store,
        settings=settings,
        welcome=welcome,
        engine=engine,
        gateway=gateway,
        chat=Chat(store, gateway or EngineWriter(engine, settings), settings),
        kept=KeptAnswers(settings.idempotency_seconds),
        rewards=Rewards(workspace, store),
        promote=promote or _promote_in(store),
        rollback=rollback or _rollback_in(store),
    )


def _application(house: House, rows: Sequence[Row], lifespan: Lifespan[Starlette]) -> Starlette:
    app = Starlette(
        routes=make_routes(house, rows),
        lifespan=lifespan,
        middleware=[
            Middleware(Guard, allow_remote=house.settings.allow_remote, max_requests=house.settings.max_requests)
        ],
        exception_handlers={HTTPException: _refuse, Exception: _fail},
    )
    app.router.redirect_slashes = False
    app.state.house = house
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """Put Starlette's own refusals (no such route, another method) into the envelope."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        problem = Problem(405, f"{request.method} is not for this route", "method_not_allowed")
    else:
        problem = not_found()
    response = problem_response(problem, request)
    response.headers.update(error.headers or {})
    return response


async def _fail(request: Request, error: Exception) -> Response:
    """Put what broke outside of every handler into the envelope."""
    return problem_response(note_failure(error, request, route="?"), request)


def _promote_in(store: Store) -> Promote:
    def promote(n: int, override_reason: str, actor: str) -> None:
        policies = [model for model in registry.list_models(store) if model.round == n and model.kind == "policy"]
        if not policies:
            raise Problem(400, f"round {n} has made no policy yet", "invalid_value")
        kind: registry.DeploymentKind = "override" if override_reason else "promote"
        registry.serve(store, policies[-1].name, round=n, actor=actor, reason=override_reason, kind=kind)

    return promote


def _rollback_in(store: Store) -> Rollback:
    def rollback(actor: str) -> None:
        registry.rollback(store, actor=actor)

    return rollback
