"""Which item comes when, and which are computed together: pure functions of counters, so nothing needs saving."""

from __future__ import annotations

from collections.abc import Sequence

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


def batches_by_length(lengths: Sequence[int], *, max_tokens: int, rows: Sequence[int] | None = None) -> list[list[int]]:
    """Group items of like length so that a group, padded to its longest row, holds at most `max_tokens` tokens.

    Padding is then almost nothing, and memory has a bound. An item larger than the bound stands alone.

    Args:
        lengths: tokens of each item's longest row.
        max_tokens: rows times longest row, padding included.
        rows: rows of each item; 1 by default.

    Returns:
        Indices, longest first.
    """
    order = sorted(range(len(lengths)), key=lambda item: -lengths[item])
    groups: list[list[int]] = []
    num_rows = 0
    for item in order:
        more = 1 if rows is None else rows[item]
        if not groups or (num_rows + more) * lengths[groups[-1][0]] > max_tokens:
            groups.append([])
            num_rows = 0
        groups[-1].append(item)
        num_rows += more
    return groups
