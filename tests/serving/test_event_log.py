from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sanbai.serving.event_log import Event, EventLog

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run in a thread of its own: the browser tests leave a loop running in the main one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def collect(log: EventLog, after: int = -1, **more: float) -> list[Event | None]:
    return [event async for event in log.follow(after, **more)]


def test_every_reader_sees_every_event_once_and_in_order() -> None:
    log = EventLog()

    def write() -> None:
        for number in range(500):
            log.append("text", {"number": number})
            if number % 50 == 0:
                time.sleep(0.002)
        log.append("done", {}, last=True)

    async def read() -> list[list[Event | None]]:
        writer = threading.Thread(target=write)
        writer.start()
        readers = await asyncio.gather(collect(log), collect(log), collect(log, after=299))
        writer.join()
        return list(readers)

    first, second, late = run(read())
    assert first == second
    assert [event.seq for event in first if event] == list(range(501))
    assert late == first[300:]


def test_a_closed_log_can_be_read_again_from_any_point() -> None:
    log = EventLog(first=10)
    log.append("text", {"text": "a"})
    log.append("done", {}, last=True)
    assert [event.seq for event in run(collect(log)) if event] == [10, 11]
    assert [event.seq for event in run(collect(log, after=10)) if event] == [11]
    assert run(collect(log, after=99)) == []


def test_silence_is_broken_by_keep_alives() -> None:
    log = EventLog()

    async def read() -> list[Event | None]:
        task = asyncio.create_task(collect(log, keep_alive_seconds=0.02))
        await asyncio.sleep(0.09)
        log.append("done", {}, last=True)
        return await task

    events = run(read())
    assert events.count(None) >= 2
    assert events[-1] is not None


def test_a_reader_whose_loop_has_ended_does_not_stop_the_writer() -> None:
    log = EventLog()

    async def leave() -> None:
        task = asyncio.create_task(collect(log))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()

    run(leave())
    log.append("done", {}, last=True)
    assert [event.kind for event in run(collect(log)) if event] == ["done"]
