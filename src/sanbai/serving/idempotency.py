"""`Idempotency-Key`: who sends the same request twice under one key gets one answer.

A client that never saw the answer cannot know whether there was one, so it asks again. Whole successful answers are
kept in memory for a while, by account, route and key; nothing of them reaches a disk. A request that comes while the
first is being answered waits for it. An answer that failed, or that nobody stayed to receive, is not kept.

Everything here runs in the server's one event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from sanbai.serving.problems import Problem
from sanbai.serving.sse import DONE

HEADER = "idempotency-key"
KEY = re.compile(r"[\x21-\x7e]{1,255}")
#: A longer answer is not kept.
LONGEST_ANSWER = 2**20
MOST_BYTES = 2**26
MOST_ANSWERS = 10_000


#: Status, headers, body.
Kept = tuple[int, list[tuple[bytes, bytes]], bytes]


@dataclass
class _Entry:
    """One request under a key."""

    fingerprint: bytes
    """SHA-256 of the body."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Kept | None = None
    """None while it is made, and where it is not kept."""
    expires: float = 0.0


class KeptAnswers:
    """The answers of one server."""

    def __init__(self, seconds: float) -> None:
        """Keep answers for so long; 0 keeps none, and only a second request that comes meanwhile is refused its own."""
        self._seconds = seconds
        self._entries: OrderedDict[tuple[str, str, str], _Entry] = OrderedDict()  # oldest first
        self._num_bytes = 0

    async def answer(
        self, request: Request, content: bytes, *, account: str, respond: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Answer a request: by what is kept, or by `respond`.

        Args:
            request: has the header.
            content: its body.
            account: id of who asks.
            respond: makes the answer.

        Raises:
            Problem: 400, a key that is none; 422, the key was used for another body; and what `respond` raises.
        """
        key = request.headers[HEADER]
        if not KEY.fullmatch(key):
            raise Problem(400, "Idempotency-Key: wanted 1 to 255 visible ASCII characters", "invalid_value")
        place, fingerprint = (account, request.url.path, key), hashlib.sha256(content).digest()
        self._forget_old()
        while (entry := self._entries.get(place)) is not None:
            if entry.fingerprint != fingerprint:
                message = "Idempotency-Key: used for another body already; give each request a key of its own"
                raise Problem(422, message, "idempotency_key_reused")
            await entry.done.wait()
            if entry.answer is not None:
                return _replay(*entry.answer)
        entry = self._entries[place] = _Entry(fingerprint)
        try:
            response = await respond()
        except BaseException:
            self._end(place, entry)
            raise
        return _Recorded(response, lambda answer: self._end(place, entry, answer))

    def _end(self, place: tuple[str, str, str], entry: _Entry, answer: Kept | None = None) -> None:
        """Keep an answer, or nothing where there is none, and wake who waits for it."""
        if entry.done.is_set():
            return
        entry.done.set()
        if answer is None or not _succeeded(*answer) or len(answer[2]) > LONGEST_ANSWER or not self._seconds:
            self._entries.pop(place, None)
            return
        entry.answer, entry.expires = answer, time.monotonic() + self._seconds
        self._entries.move_to_end(place)
        self._num_bytes += len(answer[2])
        self._forget_old()

    def _forget_old(self) -> None:
        now = time.monotonic()
        for place, entry in list(self._entries.items()):
            if entry.answer is None:
                continue
            if entry.expires > now and self._num_bytes <= MOST_BYTES and len(self._entries) <= MOST_ANSWERS:
                break
            del self._entries[place]
            self._num_bytes -= len(entry.answer[2])


class _Recorded(Response):
    """A response that tells what of it was sent, at its end."""

    def __init__(self, response: Response, on_end: Callable[[Kept | None], None]) -> None:
        super().__init__(status_code=response.status_code)
        self._response, self._on_end = response, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        start: Message = {}
        parts: list[bytes] = []
        whole = False

        async def send_recorded(message: Message) -> None:
            nonlocal whole
            if message["type"] == "http.response.start":
                start.update(message, headers=list(message["headers"]))  # others add to the list on its way
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
                whole = not message.get("more_body", False)
            await send(message)

        try:
            await self._response(scope, receive, send_recorded)
        finally:
            self._on_end((start["status"], start["headers"], b"".join(parts)) if whole else None)


def _succeeded(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
    """Whether an answer is one: a stream that failed on its way has another end."""
    streamed = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
    return 200 <= status < 300 and (not streamed or body.endswith(DONE.encode()))


def _replay(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Response:
    response = Response(body, status)
    response.raw_headers = [*headers, (b"idempotent-replayed", b"true")]
    return response
