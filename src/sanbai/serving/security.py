"""What every response carries and every request must show, around the whole application."""

from __future__ import annotations

import ipaddress
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sanbai.serving.problems import Problem, overloaded

REQUEST_ID = re.compile(r"[0-9A-Za-z._-]{1,128}")
#: Answered however many requests there are.
CHECKS = frozenset({"/health", "/ready"})

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
#: For a page or a drawing that an evaluation made: its own styles, no scripts, an origin of its own.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; sandbox"

HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware: headers on every response, no request that asks for another host, no more than can be held.

    A page of another site can make its name resolve to 127.0.0.1; the Host header then still says that name. A
    request's id is the one that it brings, or a new one.
    """

    def __init__(self, app: ASGIApp, *, allow_remote: bool, max_requests: int) -> None:
        self._app, self._allow_remote, self._max_requests = app, allow_remote, max_requests
        self._num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        brought = headers.get("x-request-id", "")
        request_id = brought if REQUEST_ID.fullmatch(brought) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                headers["x-request-id"] = request_id
            await send(message)

        problem = self._refusal(headers.get("host", ""), str(scope["path"]))
        if problem is not None:
            refusal = JSONResponse(problem.envelope(), problem.status, headers=problem.all_headers())
            await refusal(scope, receive, send_guarded)
            return
        self._num_requests += 1
        try:
            await self._app(scope, receive, send_guarded)
        finally:
            self._num_requests -= 1

    def _refusal(self, host: str, path: str) -> Problem | None:
        if not self._allow_remote and not is_loopback(host_of(host)):
            return Problem(421, "this server answers to its own machine's name only", "wrong_host")
        if self._num_requests >= self._max_requests and path not in CHECKS:
            return overloaded("too many requests are open; try again shortly", retry_after_seconds=2, status=503)
        return None


def request_id_of(scope: Scope) -> str:
    """Return the id that the guard gave a request."""
    return str(scope["state"]["request_id"])


def host_of(authority: str) -> str:
    """Return the host of `host:port`, of `[::1]:port` the part in brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.rpartition(":")[0] if ":" in authority else authority


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
