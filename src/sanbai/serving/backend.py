"""Another server that speaks OpenAI's protocol: requests to its one address, and what comes back, bounded and checked.

Only the configured address is ever asked: no redirect is followed, no proxy of the environment used. Bodies, texts and
the key are never logged. Whatever goes wrong is a `Problem` of ours; `dialect.py` reads what the servers say.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx2

from sanbai.foundation.errors import UsageError
from sanbai.serving.dialect import error_of, problem_of
from sanbai.serving.problems import Problem, overloaded

CONNECT_SECONDS = 5.0
PROBE_SECONDS = 5.0
LARGEST_ANSWER = 256 * 2**20
LARGEST_REFUSAL = 2**18
LONGEST_EVENT = 2**22
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "sanbai"}
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Backend:
    """One server; lives in one event loop."""

    def __init__(self, url: str, *, key: str = "", timeout_seconds: float) -> None:
        """Make its client; nothing is sent yet.

        Args:
            url: ends in `/v1` usually; `ServeRecipe` has checked it.
            key: sent as a bearer token; none where it is empty.
            timeout_seconds: longest silence.
        """
        self._url, self._seconds = url.rstrip("/"), timeout_seconds
        self._client = httpx2.AsyncClient(
            headers=HEADERS | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx2.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def models(self) -> list[dict[str, Any]]:
        """Return the models that it offers, each with its `id`.

        Raises:
            Problem: it does not answer, or not with a list of models.
        """
        with explained(PROBE_SECONDS):
            async with self._client.stream("GET", f"{self._url}/models", timeout=PROBE_SECONDS) as response:
                found = await _read_json(response)
        models = found.get("data")
        named = [one for one in models if isinstance(one, dict)] if isinstance(models, list) else []
        return [one for one in named if isinstance(one.get("id"), str) and one["id"]]

    async def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a body and return the whole answer.

        Args:
            path: as `/chat/completions`; `../tokenize` stands beside `/v1`.
            body: JSON.

        Raises:
            Problem: it refused, failed, or fell silent.
        """
        with explained(self._seconds):
            async with self._client.stream("POST", self._address(path), json=dict(body)) as response:
                found = await _read_json(response)
        if (problem := error_of(found)) is not None:
            raise problem
        return found

    async def follow(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any] | None]:
        """Send a body and yield what comes: each event, and None where the server says that it is done.

        A server that does not stream gives its whole answer as one event. Closing the iterator ends the request.

        Raises:
            Problem: it refused, failed, or fell silent.
        """
        with explained(self._seconds):
            async with self._client.stream("POST", self._address(path), json=dict(body)) as response:
                media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if response.status_code != 200 or media_type == "application/json":
                    yield _checked(await _read_json(response))
                    return
                async for kind, data in _events(response):
                    if kind == b"data" and data.startswith(b"[DONE]"):
                        yield None
                        return
                    event = _parse(data)
                    yield _checked(event if kind == b"data" else {"error": event})

    def _address(self, path: str) -> str:
        if path.startswith("../"):
            return f"{self._url.removesuffix('/v1')}/{path.removeprefix('../')}"
        return self._url + path


def key_of(variable: str) -> str:
    """Return the key that an environment variable holds; none where no variable is named.

    Raises:
        UsageError: the variable is not set.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if variable and not key:
        raise UsageError(f"serve.backend_key_variable: {variable} is not set; export the backend's key in it")
    return key


@contextlib.contextmanager
def explained(seconds: float) -> Iterator[None]:
    """Turn what a connection can do into problems; none of them quotes what was sent."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
        raise overloaded("the backend cannot be reached", retry_after_seconds=5, status=503) from None
    except httpx2.TimeoutException:
        raise Problem(
            504, f"the backend said nothing for {seconds:g} seconds", "backend_timeout", "api_error"
        ) from None
    except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL):
        raise broken("the connection to the backend broke") from None


def broken(message: str) -> Problem:
    """Return what is told when the backend does not keep to the protocol."""
    return Problem(502, message, "backend_failed", "api_error")


async def _read_json(response: httpx2.Response) -> dict[str, Any]:
    """Return the body of a response.

    Raises:
        Problem: it is a refusal, no JSON object, or too large.
    """
    refused = response.status_code != 200
    content, limit = bytearray(), LARGEST_REFUSAL if refused else LARGEST_ANSWER
    async for part in response.aiter_bytes():
        content += part
        if len(content) > limit:
            break
    if refused:
        raise problem_of(response.status_code, response.headers, bytes(content[:LARGEST_REFUSAL]))
    if len(content) > limit:
        raise broken("the backend's answer is too large")
    return _parse(bytes(content))


async def _events(response: httpx2.Response) -> AsyncIterator[tuple[bytes, bytes]]:
    """Yield the data of each event, and of `error`, which older llama.cpp servers send instead; comments are left out.

    Raises:
        Problem: a line that does not end.
    """
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > LONGEST_EVENT:
            raise broken("an event of the backend is too large")
        for line in lines:
            kind, _, data = line.strip(b"\r").partition(b":")
            if kind in {b"data", b"error"} and data.strip():
                yield kind, data.strip()
    kind, _, data = rest.strip(b"\r").partition(b":")
    if kind in {b"data", b"error"} and data.strip():
        yield kind, data.strip()


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    if (problem := error_of(event)) is not None:
        raise problem
    return event


def _parse(content: bytes) -> dict[str, Any]:
    try:
        found = _clean(json.loads(content.decode("utf-8", errors="replace")))
    except (ValueError, RecursionError):
        raise broken("the backend answered with something that is no JSON") from None
    if not isinstance(found, dict):
        raise broken("the backend answered with something that is no JSON object")
    return found


def _clean(value: Any) -> Any:
    """Return a value that any client can read: no lone surrogate, no number that JSON lacks."""
    if isinstance(value, str):
        return LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        return -9999.0 if value < 0 else None  # how vLLM writes the log-probability of what cannot be
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if isinstance(value, dict):
        return {LONE_SURROGATE.sub("\ufffd", key): _clean(one) for key, one in value.items()}
    return value
