"""Server-sent events: text that a browser or the `openai` client reads as it comes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sanbai.serving.event_log import Event

PING = ": ping\n\n"
#: Ends a stream of OpenAI's.
DONE = "data: [DONE]\n\n"
ENCODER = json.JSONEncoder(ensure_ascii=False)
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event_text(event: Event) -> str:
    """Return an event with its number, so that a reader can say how far it came."""
    return f"id: {event.seq}\nevent: {event.kind}\ndata: {ENCODER.encode(event.data)}\n\n"


def data_text(data: object) -> str:
    """Return an unnamed event, as OpenAI sends."""
    return f"data: {ENCODER.encode(data)}\n\n"


def stream_response(texts: AsyncIterator[str], *, on_end: Callable[[], None] = lambda: None) -> StreamingResponse:
    """Return a response that sends each text as it comes.

    Args:
        texts: closed when the client goes; never begun where it has gone before.
        on_end: called at the end, however it comes.
    """
    return _EventStream(texts, on_end)


class _EventStream(StreamingResponse):
    def __init__(self, texts: AsyncIterator[str], on_end: Callable[[], None]) -> None:
        super().__init__(texts, media_type="text/event-stream", headers=HEADERS)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()
