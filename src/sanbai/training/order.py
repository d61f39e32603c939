"""Which item comes when: a pure function of counters, so that nothing needs saving."""

from __future__ import annotations

from sanbai.foundation.seeds import numpy_generator


def endless_order(num_items: int, *, start: int, count: int, seed: int) -> list[int]:
    """Return places `start` to `start + count` of a walk that visits every item once an epoch, each shuffled anew.

    Args:
        num_items: at least 1.
        start: items visited before.
        count: items wanted; may run over an epoch's end.
        seed: of this walk.
    """
    order: list[int] = []
    while count > len(order):
        epoch, place = divmod(start + len(order), num_items)
        permutation = numpy_generator(seed, "epoch", epoch).permutation(num_items)
        order += permutation[place : place + count - len(order)].tolist()
    return order
