"""What goes wrong in a request, always told in OpenAI's envelope: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from sanbai.foundation.errors import (
    DataError,
    ResourceError,
    SanbaiError,
    StoreError,
    UnknownNameError,
    UsageError,
)

MOST_SHOWN = 80
"""Characters of a name that somebody made up."""


@dataclass(eq=False)  # not frozen: a context manager that it passes through sets its traceback
class Problem(Exception):  # noqa: N818 - the word for what a response tells
    """A request that is refused or failed; becomes the response.

    Attributes:
        status: HTTP status.
        message: one line for the person; never the text of a message.
        code: one word for programs.
        type: OpenAI's class of error.
        param: the field of the request that is wrong, or empty.
        headers: more headers, as `Retry-After`.
    """

    status: int
    message: str
    code: str
    type: str = "invalid_request_error"
    param: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def envelope(self) -> dict[str, Any]:
        """Return the body, with all four keys."""
        error = {"message": self.message, "type": self.type, "param": self.param or None, "code": self.code}
        return {"error": error}

    def all_headers(self) -> dict[str, str]:
        """Return its headers, with whether and when to try again: OpenAI's clients obey."""
        later = self.status in {408, 429} or self.status >= 500
        headers = {"x-should-retry": "true" if later else "false"} | dict(self.headers)
        if self.status in {429, 503}:
            headers.setdefault("Retry-After", "5")
        return headers


def overloaded(message: str, *, retry_after_seconds: int, status: int = 429) -> Problem:
    """Return the refusal of a request that may succeed a little later."""
    kind = "rate_limit_error" if status == 429 else "service_unavailable_error"
    code = "rate_limit_exceeded" if status == 429 else "overloaded"
    return Problem(status, message, code, kind, headers={"Retry-After": str(retry_after_seconds)})


def not_found(message: str = "no such page; the routes are in the README") -> Problem:
    """Return a 404."""
    return Problem(404, message, "not_found")


def of_sanbai_error(error: SanbaiError) -> Problem:
    """Say in HTTP what the floors below say in Python."""
    message = " ".join(str(error).split())  # one line, though it may quote a name that somebody sent
    if isinstance(error, UnknownNameError):
        return Problem(404, message, "not_found")
    if isinstance(error, DataError | UsageError):
        return Problem(400, message, "invalid_value")
    if isinstance(error, StoreError | ResourceError):
        return Problem(503, message, "unavailable", "service_unavailable_error", headers={"Retry-After": "5"})
    return Problem(500, message, "failed", "api_error")


def of_validation_error(error: ValidationError) -> Problem:
    """Say which field of a body is wrong: the first one, without repeating what it held."""
    problem = error.errors(include_input=False, include_url=False)[0]
    place = _place(problem["loc"])
    message = problem["msg"][0].lower() + problem["msg"][1:]
    where = f"{place}: " if place else "body: "
    code = "missing_field" if problem["type"] == "missing" else "invalid_value"
    return Problem(400, f"{where}{message}", code, param=place)


def _place(location: Sequence[int | str]) -> str:
    place = ""
    for part in location:
        place += f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" if place else _shown(part)
    return place


def _shown(key: str) -> str:
    """Return a field's name; one that somebody made up in ASCII if need be, and no longer than a line."""
    return key if len(key) <= MOST_SHOWN and key.isprintable() else f"{key[:MOST_SHOWN]!a}"
