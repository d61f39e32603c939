"""What the engine's thread has for event loops, delivered once a step: a loop is woken once, however much has come.

A wake-up from another thread is a system call, after which both threads want to run and only one can. At 32 streams a
wake-up a token costs more than the tokens' events.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence


class Post:
    """Functions to be called in their event loops; of one thread alone."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}

    def put(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """Keep a call until `deliver`."""
        self._waiting.setdefault(loop, []).append(call)

    def deliver(self) -> None:
        """Let every loop make its calls, in the order of `put`."""
        waiting, self._waiting = self._waiting, {}
        for loop, calls in waiting.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(_call_all, calls)


def _call_all(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()
