"""How much memory the present machine has; asked, never assumed."""

from __future__ import annotations

import os
from pathlib import Path

#: A container's limit (cgroup version 2).
LIMIT_FILE = Path("/sys/fs/cgroup/memory.max")


def memory_bytes(limit_file: Path = LIMIT_FILE) -> int:
    """Return the bytes of main memory that this process may use: the machine's, or its container's where that is less.

    Args:
        limit_file: holds a number, or `max`; may be absent.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = limit_file.read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
