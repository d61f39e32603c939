"""What is only read: texts whose vectors or rewards are wanted, a bounded queue of them before the engine's thread.

Between two steps of the answers the thread reads one batch of one request; accounts take turns, and a request that
nobody waits for any more is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sanbai.generation.fair_queue import FairQueue
from sanbai.serving.problems import Problem, overloaded

log = logging.getLogger(__name__)

Rows = Sequence[Sequence[int]]


@dataclass(eq=False)
class Reading:
    """One request.

    Attributes:
        rows: token ids of each text.
        compute: some of the rows -> one result each; called in the engine's thread.
        tenant: who asks.
        on_end: told all results, or the problem that there is instead, in the engine's thread, exactly once.
    """

    rows: Rows
    compute: Callable[[Rows], Sequence[Any]]
    tenant: str
    on_end: Callable[[list[Any] | Problem], None]
    results: list[Any] = field(default_factory=list, init=False)
    stopped: bool = field(default=False, init=False)

    def stop(self) -> None:
        """Drop it at the next batch."""
        self.stopped = True


class Readings:
    """Requests that wait to be read. `step` is the engine's thread's, all else may be called from any thread."""

    def __init__(self, *, max_waiting: int, batch_tokens: int) -> None:
        """Begin empty.

        Args:
            max_waiting: requests at most.
            batch_tokens: tokens that are read at a time, but a whole text at least.
        """
        self._max_waiting, self._batch_tokens = max_waiting, batch_tokens
        self._queue: FairQueue[Reading] = FairQueue(max_waiting + 1)  # one that had its turn comes back
        self._lock = threading.Lock()
        self._num_open = 0

    @property
    def num_open(self) -> int:
        """Requests that wait or are being read."""
        return self._num_open

    def submit(self, reading: Reading) -> None:
        """Queue a request.

        Raises:
            Problem: 429, too many wait.
        """
        with self._lock:
            if self._num_open >= self._max_waiting:
                raise overloaded(f"{self._num_open} requests are waiting to be read; try again", retry_after_seconds=2)
            self._num_open += 1
            self._queue.push(reading, reading.tenant)

    def step(self) -> None:
        """Read one batch of the next request, if there is one."""
        with self._lock:
            if not len(self._queue):
                return
            reading = self._queue.pop()
        if reading.stopped:
            self._end(reading, Problem(499, "the client has gone", "stopped"))
            return
        try:
            reading.results += reading.compute(self._batch(reading))
        except Exception as error:  # noqa: BLE001 - what one request asks for must not end the others
            log.error("reading.failed error=%s", type(error).__name__)
            self._end(reading, Problem(500, "the texts could not be read", "generation_failed", "api_error"))
            return
        if len(reading.results) >= len(reading.rows):
            self._end(reading, reading.results)
            return
        with self._lock:
            self._queue.push(reading, reading.tenant)

    def end_all(self, problem: Problem) -> None:
        """Answer every request by a problem."""
        while self._num_open:
            with self._lock:
                reading = self._queue.pop()
            self._end(reading, problem)

    def _batch(self, reading: Reading) -> Rows:
        first, count, tokens = len(reading.results), 0, 0
        for row in reading.rows[first:]:
            tokens += len(row)
            if count and tokens > self._batch_tokens:
                break
            count += 1
        return reading.rows[first : first + count]

    def _end(self, reading: Reading, told: list[Any] | Problem) -> None:
        with self._lock:
            self._num_open -= 1
        try:
            reading.on_end(told)
        except Exception as error:  # noqa: BLE001 - whoever listens must not end the engine
            log.error("reading.end_failed error=%s", type(error).__name__)


def reading_for(
    rows: Rows, compute: Callable[[Rows], Sequence[Any]], *, tenant: str
) -> tuple[Reading, asyncio.Future[list[Any]]]:
    """Return a request, and the running event loop's future of its results."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Any]] = loop.create_future()

    def settle(told: list[Any] | Problem) -> None:
        if future.done():
            return
        if isinstance(told, Problem):
            future.set_exception(told)
        else:
            future.set_result(told)

    def tell(told: list[Any] | Problem) -> None:
        loop.call_soon_threadsafe(settle, told)

    return Reading(rows, compute, tenant, tell), future
