"""Independent parts of one computation side by side: a thread each, with kernels of one thread.

Small products gain little from several threads a kernel (1.3 to 1.6 times for two, less than one beside a busy
neighbour, since each product waits for its slowest thread); parts that meet once a step gain nearly all. Results come
back in the parts' order and each is computed as it would be alone, so no number depends on how many threads there are.

Python's lock is no hindrance: kernels, and autograd between them, run without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import nullcontext
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


class _Threads(threading.local):
    """What one thread knows: whether it is computing a part, and so must not wait for others."""

    computing = False


_here = _Threads()
_pool: list[ThreadPoolExecutor] = []


def use_threads(number: int) -> None:
    """Let `map_parts` compute `number` parts at a time from now on, each by kernels of one thread.

    Process-wide, as torch's own setting is; 1 computes parts one after the other in the caller's thread.
    """
    torch.set_num_threads(1)
    while _pool:
        _pool.pop().shutdown()
    if number > 1:
        _pool.append(ThreadPoolExecutor(number, thread_name_prefix="part"))


def map_parts(function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return the function's result for each part, in order.

    The caller's gradient mode and its autocast on the CPU hold in the parts. A part that itself asks for parts gets
    them one after the other.

    Raises:
        Exception: the first failing part's, when those that run beside it have ended; the others never begin.
    """
    if not _pool or len(parts) < 2 or _here.computing:
        return [function(part) for part in parts]
    with_gradient, with_autocast = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def compute(part: Part) -> Result:
        _here.computing = True
        # Not entered where it is off: it would keep the casts of a part's own autocast until the part has ended.
        precision = torch.autocast("cpu", dtype) if with_autocast else nullcontext()
        with torch.set_grad_enabled(with_gradient), precision:
            return function(part)

    pending = [_pool[0].submit(compute, part) for part in parts]
    wait(pending, return_when=FIRST_EXCEPTION)
    begun = [future for future in pending if not future.cancel()]
    wait(begun)
    return [future.result() for future in begun]
