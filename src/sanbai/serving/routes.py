"""Routes: one row says method, path, who may, what body, and what answers. What has no row does not exist.

`dispatch` is the one way from a request to a handler: who is it, may they, is it their own page that asks, is the body
what it should be, then the handler, then any error as the envelope. Handlers are plain functions, run in threads, that
take a `Call` and return a response or a JSON value; those that stream are coroutines.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, cast
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sanbai.feedback.accounts import Account, LoginSession
from sanbai.foundation.errors import SanbaiError
from sanbai.serving.access import SAFE_METHODS, Access, Caller, check_access, check_origin, identify
from sanbai.serving.house import House
from sanbai.serving.idempotency import HEADER as IDEMPOTENCY_KEY
from sanbai.serving.problems import Problem, not_found, of_sanbai_error, of_validation_error
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.security import request_id_of

log = logging.getLogger(__name__)

Method = Literal["GET", "POST", "PATCH", "DELETE"]
#: Routes of the API for programs; keys with the scope v1 open these.
PROGRAMS = ("/v1/", "/tokenize", "/detokenize", "/tokenizer_info", "/metrics", "/openapi.json")
ID = re.compile(r"[0-9a-zA-Z._-]{1,80}")


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


#: Text as every database can hold it.
PlainText = Annotated[str, AfterValidator(_without_nul)]


class Body(BaseModel):
    """Base of request bodies of our own API: unknown fields are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NoBody(Body):
    """Nothing, or an empty object."""


Found = TypeVar("Found", bound=BaseModel)


@dataclass(frozen=True)
class Call:
    """One request, after it was let through."""

    house: House
    request: Request
    caller: Caller
    _body: BaseModel

    @property
    def account(self) -> Account:
        """Who asks; only on routes that are not open to anyone."""
        assert self.caller.account is not None
        return self.caller.account

    @property
    def session(self) -> LoginSession | None:
        """The browser's session; None for programs."""
        return self.caller.session

    def body(self, kind: type[Found]) -> Found:
        """Return the body as the class that the route's row names."""
        assert isinstance(self._body, kind)
        return self._body

    def part(self, name: str) -> str:
        """Return a part of the path; what cannot be an id is not found."""
        value = str(self.request.path_params[name])
        if not ID.fullmatch(value):
            raise not_found(f"nothing has this {name}")
        return value

    def number(self, name: str, default: int, *, low: int, high: int) -> int:
        """Return a whole number of the query.

        Raises:
            Problem: 400, not a number within the bounds.
        """
        text = self.request.query_params.get(name, str(default))
        if not re.fullmatch(r"-?[0-9]{1,15}", text) or not low <= int(text) <= high:
            raise Problem(400, f"{name}: wanted a whole number from {low} to {high}", "invalid_value", param=name)
        return int(text)

    def query_id(self, name: str) -> str:
        """Return an id of the query, or an empty string.

        Raises:
            Problem: 400, cannot be an id.
        """
        text = self.request.query_params.get(name, "")
        if text and not ID.fullmatch(text):
            raise Problem(400, f"{name}: not an id", "invalid_value", param=name)
        return text


Handler = Callable[[Call], Any]


@dataclass(frozen=True)
class Row:
    """One route of the table.

    Attributes:
        method: of HTTP.
        path: Starlette's pattern.
        access: the least role.
        handle: returns a Response, or a value that becomes JSON.
        body: what a write must carry.
        is_page: an HTML page: who may not see it is sent elsewhere instead of being told in JSON.
        query: what may be asked for in the query.
    """

    method: Method
    path: str
    access: Access
    handle: Handler
    body: type[BaseModel] = NoBody
    is_page: bool = False
    query: tuple[str, ...] = ()


def make_routes(house: House, rows: Sequence[Row]) -> list[Route]:
    """Return Starlette's routes for a table, one for each path."""
    paths = list(dict.fromkeys(row.path for row in rows))
    return [_route(house, path, {row.method: row for row in rows if row.path == path}) for path in paths]


def _route(house: House, path: str, by_method: dict[Method, Row]) -> Route:
    async def endpoint(request: Request) -> Response:
        method = cast("Method", "GET" if request.method == "HEAD" else request.method)
        return await dispatch(house, by_method[method], request)

    return Route(path, endpoint, methods=list(by_method))


async def dispatch(house: House, row: Row, request: Request) -> Response:
    """Answer one request by one row of the table."""
    began = time.monotonic()
    try:
        response = await _answer(house, row, request)
    except Problem as problem:
        response = problem_response(problem, request, is_page=row.is_page)
    except SanbaiError as error:
        response = problem_response(of_sanbai_error(error), request)
    except ClientDisconnect:
        response = Response(status_code=499)
    except Exception as error:  # noqa: BLE001 - the one place where whatever went wrong becomes a 500 without its text
        response = problem_response(note_failure(error, request, route=row.path), request)
    log.info(
        "request method=%s route=%s status=%d milliseconds=%.0f id=%s",
        row.method,
        row.path,
        response.status_code,
        1000 * (time.monotonic() - began),
        request_id_of(request.scope),
    )
    return response


async def _answer(house: House, row: Row, request: Request) -> Response:
    scope: Literal["v1", "api"] = "v1" if row.path.startswith(PROGRAMS) else "api"
    caller = await run_in_threadpool(identify, house.store, request) if row.access != "anyone" else Caller()
    check_access(caller, row.access, scope)
    check_origin(caller, request)
    if request.method in SAFE_METHODS:
        return await _handle(row, Call(house, request, caller, NoBody()))
    content = await _read_body(request, house.settings)
    call = Call(house, request, caller, _parse(row.body, content))
    if scope == "api" or caller.account is None or IDEMPOTENCY_KEY not in request.headers:
        return await _handle(row, call)
    return await house.kept.answer(request, content, account=caller.account.id, respond=lambda: _handle(row, call))


async def _handle(row: Row, call: Call) -> Response:
    if inspect.iscoroutinefunction(row.handle):
        result = await cast("Awaitable[Any]", row.handle(call))
    else:
        result = await run_in_threadpool(row.handle, call)
    return result if isinstance(result, Response) else JSONResponse(result)


async def _read_body(request: Request, settings: ServeRecipe) -> bytes:
    """Return the body, read no further and no longer than the limits."""
    parts, size, limit = [], 0, settings.max_body_bytes
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise Problem(413, f"the body is longer than {limit} bytes", "too_large")
                parts.append(part)
    except TimeoutError:
        message = f"the body did not arrive within {settings.body_seconds:g} seconds"
        raise Problem(408, message, "timeout", headers={"Connection": "close"}) from None
    content = b"".join(parts)
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content and media_type != "application/json":
        raise Problem(415, "the body must be application/json", "unsupported_media_type")
    return content


def _parse(kind: type[BaseModel], content: bytes) -> BaseModel:
    try:
        return kind.model_validate_json(content or b"{}")
    except ValidationError as error:
        raise of_validation_error(error) from None


def problem_response(problem: Problem, request: Request, *, is_page: bool = False) -> Response:
    """Return a problem as a response: the envelope, or for pages a way on."""
    if is_page and problem.status in {401, 403}:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        target = "/sign-in?next=" + quote(here, safe="/") if problem.status == 401 else "/"
        return Response(status_code=303, headers={"Location": target})
    return JSONResponse(problem.envelope(), problem.status, headers=problem.all_headers())


def note_failure(error: Exception, request: Request, *, route: str) -> Problem:
    """Log where something broke that never should, and return what the client is told."""
    id_, where = request_id_of(request.scope), _where(error)
    name = type(error).__name__
    log.error("request.failed id=%s method=%s route=%s error=%s at=%s", id_, request.method, route, name, where)
    return Problem(500, f"the server failed on this request; its log says where, at {id_}", "failed", "api_error")


def _where(error: BaseException) -> str:
    """Return file and line of the innermost frame; never the error's text, which may quote a message."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"
