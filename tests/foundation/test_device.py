from __future__ import annotations

import platform
import weakref

import psutil
import pytest

from sanbai.foundation.device import give_back_memory

HOLES = 1000
HOLE_BYTES = 2**16  # each lies in the heap, where glibc keeps what is free


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's heap")
def test_holes_between_what_stays_go_back_to_the_system() -> None:
    process = psutil.Process()
    give_back_memory()  # what earlier tests have left free would be filled first
    before = process.memory_info().rss
    pieces = [bytearray(b"x" * HOLE_BYTES) for _ in range(HOLES)]
    last = bytearray(b"x" * HOLE_BYTES)  # nothing before it can go by the heap's end alone
    held = process.memory_info().rss - before
    assert held > 0.8 * HOLES * HOLE_BYTES
    pieces.clear()
    give_back_memory()
    assert process.memory_info().rss - before < 0.2 * held
    assert len(last) == HOLE_BYTES


def test_what_only_a_cycle_holds_is_freed() -> None:
    class Large:
        itself: Large

    large = Large()
    large.itself = large
    gone = weakref.ref(large)
    del large
    give_back_memory()
    assert gone() is None
