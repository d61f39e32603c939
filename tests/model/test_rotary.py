"""Rotary positions against complex multiplication, one number at a time."""

from __future__ import annotations

import math

import torch

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
