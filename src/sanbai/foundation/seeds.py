"""Randomness with a name: every generator is derived from the recipe's one seed and the path of its use.

Two uses never share a stream, and adding a use never shifts another's numbers.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for a named use: the first eight bytes of SHA-256, their top bit cleared."""
    path = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator for the named use."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a PCG64 generator for the named use."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *names)))


def python_random(seed: int, *names: str | int) -> random.Random:
    """Return a Mersenne Twister for the named use."""
    return random.Random(derive_seed(seed, *names))
