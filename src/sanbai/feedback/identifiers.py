"""Ids: time-sortable for what people make, determined by content for what a round makes."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
import uuid

from sanbai.foundation.files import canonical_json


class _Clock:
    """The last moment given out, so that two ids of one process are never equal and always in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def tick(self) -> int:
        """Return milliseconds since 1970 times 4096, counted up where the clock stands still."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1_000_000 << 12)
            return self._last


_clock = _Clock()


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562): 48 bits of milliseconds, 12 of a counter, 62 random ones.

    As text, ids sort in the order in which this process made them.
    """
    moment = _clock.tick()
    value = (moment >> 12) << 80 | 7 << 76 | (moment & 0xFFF) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def content_id(*content: object) -> str:
    """Return 32 hexadecimal digits that only the content determines: SHA-256 of its canonical JSON, cut."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:32]


def now_ms() -> int:
    """Return the time in milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
