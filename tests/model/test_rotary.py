"""Rotary positions against complex multiplication, one number at a time."""

from __future__ import annotations

import math

import pytest
import torch

from sanbai.model.config import RopeScaling
from sanbai.model.rotary import rotate, rotation


def test_rotation_turns_pairs_by_position_and_wavelength() -> None:
    x = torch.randn(1, 3, 1, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    turn = rotation(torch.tensor([[0, 5, 17]]), head_width=4, theta=100.0, dtype=torch.float64)
    found = rotate(x, turn)
    for row, position in enumerate([0, 5, 17]):
        a1, a2, b1, b2 = x[0, row, 0].tolist()
        for place, (a, b, angle) in enumerate([(a1, b1, position), (a2, b2, position / 10)]):
            expected = complex(a, b) * complex(math.cos(angle), math.sin(angle))
            assert abs(complex(found[0, row, 0, place].item(), found[0, row, 0, place + 2].item()) - expected) < 1e-12
    assert torch.autograd.gradcheck(lambda value: rotate(value, turn), (x,))


def slow_wavelengths(scaling: RopeScaling, width: int, theta: float) -> list[float]:
    """Llama 3.1's rule, as its authors' code has it, and linear interpolation."""
    result = []
    for i in range(width // 2):
        wavelength = 2 * math.pi * theta ** (2 * i / width)
        longest = scaling.original_positions / scaling.slow_turns
        shortest = scaling.original_positions / scaling.fast_turns
        if scaling.kind == "linear" or wavelength > longest:
            wavelength *= scaling.factor
        elif wavelength > shortest:
            smooth = (scaling.original_positions / wavelength - scaling.slow_turns) / (
                scaling.fast_turns - scaling.slow_turns
            )
            wavelength = 1 / ((1 - smooth) / (wavelength * scaling.factor) + smooth / wavelength)
        result.append(wavelength)
    return result


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_stretched_wavelengths_are_the_rules(kind: str) -> None:
    scaling = RopeScaling.model_validate({"kind": kind, "factor": 8.0, "original_positions": 64})
    turn = rotation(torch.tensor([[7]]), head_width=16, theta=500.0, dtype=torch.float64, scaling=scaling)
    for place, wavelength in enumerate(slow_wavelengths(scaling, 16, 500.0)):
        assert math.isclose(turn.cos[0, 0, 0, place].item(), math.cos(2 * math.pi * 7 / wavelength), abs_tol=1e-12)
        assert math.isclose(turn.sin[0, 0, 0, place + 8].item(), math.sin(2 * math.pi * 7 / wavelength), abs_tol=1e-12)
