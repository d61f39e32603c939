"""Server-sent events: text that a browser or the `openai` client reads as it comes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from sanbai.serving.event_log import Event

PING = ": ping\n\n"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event_text(event: Event) -> str:
    """Return an event with its number, so that a reader can say how far it came."""
    return f"id: {event.seq}\nevent: {event.kind}\ndata: {json.dumps(event.data, ensure_ascii=False)}\n\n"


def data_text(data: object) -> str:
    """Return an unnamed event, as OpenAI sends."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def stream_response(texts: AsyncIterator[str]) -> StreamingResponse:
    """Return a response that sends each text as it comes; the iterator is closed when the client goes."""
    return StreamingResponse(texts, media_type="text/event-stream", headers=HEADERS)
