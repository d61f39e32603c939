"""Where and how tensors are computed: threads, precision, device; all of it part of the resolved recipe.

Results are equal bit for bit only where these are equal, so they are recorded with every artifact.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import gc
import os
import platform
import sys
from collections.abc import Iterator
from functools import cache
from typing import Literal

import torch
from pydantic import Field

from sanbai.foundation.parallel import use_threads
from sanbai.foundation.recipe import RecipeSection

#: `rows_to_fill` makes numbers of rows multiples of this.
ROWS_STEP = 64


class Compute(RecipeSection):
    """Section `[compute]`: threads, precision and device, fixed so that a run can be repeated bit for bit."""

    no_number_depends_on = frozenset({"num_threads"})

    num_threads: int = Field(default=2, ge=1, le=1024)
    """Parts of a batch that are computed at once, each by one thread; no number depends on it. 1 on a GPU."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of matrix products in training; weights, optimizer and losses stay in float32."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where models live."""

    @property
    def product_dtype(self) -> torch.dtype:
        """Of matrix products in training."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


def apply_compute(compute: Compute) -> None:
    """Set this process's threads and deterministic kernels, and tune the allocator."""
    use_threads(compute.num_threads if compute.device == "cpu" else 1)
    torch.use_deterministic_algorithms(mode=True)
    # Filling fresh memory would cost a fifth of a step and change no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")
    tune_allocator()


@contextlib.contextmanager
def autocast(compute: Compute) -> Iterator[None]:
    """Run matrix products in the recipe's precision; in float32 this does nothing."""
    with torch.autocast(compute.device, dtype=torch.bfloat16, enabled=compute.precision == "bfloat16"):
        yield


def has_matrix_tiles(tensor: torch.Tensor) -> bool:
    """Whether products of this tensor are done by a CPU's matrix unit (AMX): bfloat16, also by autocast."""
    if tensor.device.type != "cpu":
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tensor.dtype
    return dtype == torch.bfloat16 and _cpu_has_matrix_tiles()


def rows_to_fill(rows_ND: torch.Tensor) -> int:
    """Return how many rows should be added to these for a product.

    A CPU's kernels are compiled for each number of rows. On a matrix unit that takes ten times as long as the product
    of a small model, so that numbers that differ from batch to batch are better rounded up; elsewhere, and to rows
    that are few, none is added.
    """
    return -len(rows_ND) % ROWS_STEP if len(rows_ND) > ROWS_STEP and has_matrix_tiles(rows_ND) else 0


@cache
def _cpu_has_matrix_tiles() -> bool:
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def tune_allocator() -> None:
    """Keep freed memory in the process, so that large activations do not fault their pages in again each step.

    glibc only; elsewhere nothing happens. Measured 1.2 to 1.4 times faster training on a CPU (docs/experiments.md).
    """
    if (library := _glibc()) is None:
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # M_* of malloc.h
    library.mallopt(mmap_threshold, 1 << 30)
    library.mallopt(trim_threshold, (1 << 31) - 1)
    library.mallopt(top_pad, 256 << 20)


def give_back_memory() -> None:
    """Return what is free in the process to the system: after something large has gone, and seldom.

    glibc keeps the holes that lie between what stays; elsewhere only what cyclic garbage holds is freed.
    """
    gc.collect()
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(ctypes.util.find_library("c"))


def describe_machine() -> dict[str, str | int]:
    """Return what a manifest says about the machine: system, processor, cores' capability, versions."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count() or 1,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
