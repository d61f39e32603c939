"""Who is asking, and may they: API keys, browser sessions, CSRF, and the brake on guessing passwords."""

from __future__ import annotations

import hmac
import threading
import time
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from starlette.requests import Request

from sanbai.feedback.accounts import Account, LoginSession, Scope, find_api_key, find_session
from sanbai.feedback.store import Store
from sanbai.serving.problems import Problem, overloaded

COOKIE = "sanbai_session"
CSRF_HEADER = "x-csrf-token"
SAFE_METHODS = frozenset({"GET", "HEAD"})

#: Least role that a route asks for; `anyone` needs no sign-in.
Access = Literal["anyone", "user", "labeler", "admin"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from: nobody known, a browser that signed in, or a program with a key."""

    account: Account | None = None
    session: LoginSession | None = None
    scopes: tuple[Scope, ...] = ()


def identify(store: Store, request: Request) -> Caller:
    """Find out who sends a request; a key counts before a cookie.

    Raises:
        Problem: 401 for a key that is unknown or revoked.
    """
    authorization = request.headers.get("authorization", "")
    if authorization:
        kind, _, key = authorization.partition(" ")
        found = find_api_key(store, key.strip()) if kind.lower() == "bearer" and key.strip() else None
        if found is None:
            raise Problem(401, "no such API key, or it was revoked", "invalid_api_key", "authentication_error")
        return Caller(found.account, None, found.scopes)
    cookie = request.cookies.get(COOKIE, "")
    session = find_session(store, cookie) if cookie else None
    return Caller(session.account, session) if session else Caller()


def check_access(caller: Caller, access: Access, scope: Scope) -> None:
    """Let a caller through or not.

    Raises:
        Problem: 401 where nobody has signed in, 403 where the role or the key's scopes do not suffice.
    """
    if access == "anyone":
        return
    if caller.account is None:
        raise Problem(401, "sign in first, or send an API key", "invalid_api_key", "authentication_error")
    if not caller.account.may_act_as(access):
        raise Problem(403, f"this needs the role {access}", "forbidden", "permission_error")
    if caller.session is None and scope not in caller.scopes:
        raise Problem(403, f"this key lacks the scope {scope}", "forbidden", "permission_error")


def check_origin(caller: Caller, request: Request) -> None:
    """Refuse a write that another site's page sends with this browser's cookie.

    Raises:
        Problem: 403.
    """
    if request.method in SAFE_METHODS or "authorization" in request.headers:
        return
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin", "")
    foreign = origin != "" and urlsplit(origin).netloc != request.headers.get("host", "")
    if site not in {"same-origin", "none"} or foreign:
        raise Problem(403, "this request comes from another site", "forbidden", "permission_error")
    if caller.session is not None:
        sent = request.headers.get(CSRF_HEADER, "")
        if not hmac.compare_digest(sent.encode(), caller.session.csrf.encode()):
            raise Problem(403, "the header X-CSRF-Token is missing or old; reload the page", "csrf", "permission_error")


class Throttle:
    """Slows down guessing: after some failures in a row a name must wait, twice as long each time.

    Kept in memory; a restart forgets, and takes longer than the wait that it saves.
    """

    FREE_FAILURES = 5
    LONGEST_WAIT_SECONDS = 300
    MOST_NAMES = 10_000

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}  # name -> failures in a row, when the last one was
        self._lock = threading.Lock()

    def check(self, name: str) -> None:
        """Refuse to try again too soon.

        Raises:
            Problem: 429 with Retry-After.
        """
        with self._lock:
            count, last = self._failures.get(name, (0, 0.0))
        if count < self.FREE_FAILURES:
            return
        wait = min(self.LONGEST_WAIT_SECONDS, 2 ** (count - self.FREE_FAILURES + 1))
        left = last + wait - time.monotonic()
        if left > 0:
            raise overloaded(
                f"too many wrong sign-ins; wait {int(left) + 1} seconds", retry_after_seconds=int(left) + 1
            )

    def fail(self, name: str) -> None:
        """Count a wrong attempt."""
        with self._lock:
            if len(self._failures) >= self.MOST_NAMES:
                self._failures.pop(next(iter(self._failures)))
            count, _ = self._failures.pop(name, (0, 0.0))
            self._failures[name] = (count + 1, time.monotonic())

    def succeed(self, name: str) -> None:
        """Forget a name's failures."""
        with self._lock:
            self._failures.pop(name, None)
