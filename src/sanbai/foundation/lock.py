"""A lock on a file that ends with the process that holds it, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sanbai.foundation.errors import ResourceError


@contextlib.contextmanager
def exclusive(path: Path, title: str) -> Iterator[None]:
    """Hold the lock.

    Raises:
        ResourceError: another process holds it; `title` says of what.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(f"{title}: another process is making it; wait for that one or stop it") from None
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock now."""
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
