"""Turns by hand: tenants go round, each in its own order."""

from __future__ import annotations

import pytest

from sanbai.foundation.errors import ResourceError
from sanbai.generation.fair_queue import FairQueue


def drain(queue: FairQueue[str]) -> list[str]:
    return [queue.pop() for _ in range(len(queue))]


def test_a_tenant_with_many_requests_holds_nobody_up() -> None:
    queue: FairQueue[str] = FairQueue(10)
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.push(item, item[0])
    assert queue.peek() == "a1"
    assert drain(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert queue.peek() is None


def test_what_is_put_back_is_next_and_does_not_count_against_the_limit() -> None:
    queue: FairQueue[str] = FairQueue(2)
    queue.push("a1", "a")
    queue.push("b1", "b")
    queue.push_front("b0", "b")
    with pytest.raises(ResourceError, match="2 requests are waiting"):
        queue.push("c1", "c")
    assert drain(queue) == ["b0", "a1", "b1"]


def test_an_item_leaves_from_anywhere() -> None:
    queue: FairQueue[str] = FairQueue(5)
    for item in ("a1", "b1", "b2", "b3"):
        queue.push(item, item[0])
    queue.remove("b2", "b")
    queue.remove("a1", "a")
    assert drain(queue) == ["b1", "b3"]
    with pytest.raises(ValueError, match="not in deque"):
        queue.remove("b1", "b")
