"""Who is next: tenants in turn, each in the order of its coming, so that nobody's thousand requests hold up one."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from sanbai.foundation.errors import ResourceError

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """A line for each tenant; the tenants go round."""

    def __init__(self, limit: int) -> None:
        """Begin empty; `limit` items may wait."""
        self._limit = limit
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()  # none is empty; the first is next

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def push(self, item: Item, tenant: str) -> None:
        """Put an item at the end of its tenant's line.

        Raises:
            ResourceError: the queue is full.
        """
        if len(self) >= self._limit:
            raise ResourceError(f"{self._limit} requests are waiting, and no more may; try again later")
        self._lines.setdefault(tenant, deque()).append(item)

    def push_front(self, item: Item, tenant: str) -> None:
        """Put back what had its turn, before everything else; the limit does not count."""
        self._lines.setdefault(tenant, deque()).appendleft(item)
        self._lines.move_to_end(tenant, last=False)

    def peek(self) -> Item | None:
        """Return the next item and leave it; None where nothing waits."""
        return next(iter(self._lines.values()))[0] if self._lines else None

    def pop(self) -> Item:
        """Take the next item; its tenant's turn comes again after all others'."""
        tenant, line = next(iter(self._lines.items()))
        item = line.popleft()
        if line:
            self._lines.move_to_end(tenant)
        else:
            del self._lines[tenant]
        return item

    def remove(self, item: Item, tenant: str) -> None:
        """Take an item out wherever it stands.

        Raises:
            ValueError: it does not wait.
        """
        line = self._lines.get(tenant, deque())
        line.remove(item)
        if not line:
            del self._lines[tenant]
