"""Sinusoidal positions against the paper's formula, one number at a time."""

from __future__ import annotations

import math

import torch

from sanbai.model.sinusoid import sinusoids


def test_each_number_is_the_formulas() -> None:
    found = sinusoids(torch.tensor([[0, 3], [511, 2]]), width=6, dtype=torch.float64)
    for row, position in [((0, 0), 0), ((0, 1), 3), ((1, 0), 511), ((1, 1), 2)]:
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            assert math.isclose(found[(*row, 2 * i)].item(), math.sin(angle), abs_tol=1e-12)
            assert math.isclose(found[(*row, 2 * i + 1)].item(), math.cos(angle), abs_tol=1e-12)
