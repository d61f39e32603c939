"""An append-only log of events that one thread writes and any number of pages read, each from where it left off."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

KEEP_ALIVE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Event:
    """One entry; `seq` counts from the log's first number."""

    seq: int
    kind: str
    data: Mapping[str, Any]


class EventLog:
    """Safe to append to from any thread; readers live in event loops."""

    def __init__(self, *, first: int = 0) -> None:
        self._first = first
        self._events: list[Event] = []
        self._closed = False
        self._lock = threading.Lock()
        self._readers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def is_closed(self) -> bool:
        """Whether the last event has been written."""
        return self._closed

    def append(self, kind: str, data: Mapping[str, Any], *, last: bool = False) -> None:
        """Add an event; nothing follows one that is marked the last."""
        with self._lock:
            assert not self._closed
            self._events.append(Event(self._first + len(self._events), kind, data))
            self._closed = last
            readers = list(self._readers)
        for loop, has_news in readers:
            with contextlib.suppress(RuntimeError):  # that reader's loop has ended
                loop.call_soon_threadsafe(has_news.set)

    def after(self, seq: int) -> list[Event]:
        """Return the events that come after one; all of them after -1."""
        with self._lock:
            return self._events[max(0, seq + 1 - self._first) :]

    async def follow(
        self, seq: int = -1, *, keep_alive_seconds: float = KEEP_ALIVE_SECONDS
    ) -> AsyncIterator[Event | None]:
        """Yield the events after one as they come, until the last; None whenever nothing came for a while."""
        has_news = asyncio.Event()
        reader = (asyncio.get_running_loop(), has_news)
        with self._lock:
            self._readers.add(reader)
        try:
            while True:
                has_news.clear()
                closed = self._closed
                for event in self.after(seq):
                    seq = event.seq
                    yield event
                if closed:
                    return
                try:
                    await asyncio.wait_for(has_news.wait(), keep_alive_seconds)
                except TimeoutError:
                    yield None
        finally:
            with self._lock:
                self._readers.discard(reader)
