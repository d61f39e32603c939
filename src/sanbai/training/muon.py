"""Muon: matrices move by their orthogonalised momentum (Jordan 2024, kellerjordan.github.io/posts/muon).

    m ← μ m + (1 - μ) g;   u = (1 - μ) g + μ m;   w ← w - λ η w - 0.2 sqrt(max(rows, columns)) η · orthogonal(u)

`orthogonal` replaces all singular values by numbers near 1, by five quintic Newton-Schulz steps in bfloat16. The factor
0.2 sqrt(max(rows, columns)) gives updates AdamW's usual size, so one rate serves both (Liu et al. 2025,
arXiv:2502.16982).

Equal to `torch.optim.Muon` with `match_rms_adamw`, and faster: matrices of one shape are one batched product, and
shapes are computed side by side. A wide matrix and its transpose have one orthogonalisation, so tall ones lie down.

Shapes: M matrices of one shape, R rows, C columns, R at most C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sanbai.foundation.parallel import map_parts

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""a, b, c of X ← a X + b (X X') X + c (X X')² X: steep at 0, so that small singular values rise fast."""
STEPS = 5
TOGETHER = 5
"""Matrices of one batched product; more products than threads keep all threads busy to the end."""


class Muon:
    """The momentum of some matrices, and their steps."""

    def __init__(self, matrices: Mapping[str, Tensor], *, momentum: float, weight_decay: float) -> None:
        """Start from rest.

        Args:
            matrices: changed in place by `step`.
            momentum: μ.
            weight_decay: λ.
        """
        self._matrices = dict(matrices)
        self._momentum, self._weight_decay = momentum, weight_decay
        self.buffers: dict[str, Tensor] = {}
        """Momentum by name; empty before the first step."""
        by_shape: dict[tuple[int, int], list[str]] = {}
        for name in sorted(matrices):
            rows, columns = matrices[name].shape
            by_shape.setdefault((min(rows, columns), max(rows, columns)), []).append(name)
        self._groups = [
            names[start : start + TOGETHER] for names in by_shape.values() for start in range(0, len(names), TOGETHER)
        ]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the matrices by their gradients."""
        for name, matrix in self._matrices.items():
            self.buffers.setdefault(name, torch.zeros_like(matrix))
        map_parts(lambda names: self._move(names, rate), self._groups)

    def _move(self, names: Sequence[str], rate: float) -> None:
        updates = []
        for name in names:
            gradient = self._matrices[name].grad
            assert gradient is not None
            buffer = self.buffers[name]
            buffer.lerp_(gradient, 1 - self._momentum)
            updates.append(gradient.lerp(buffer, self._momentum))
        lying = [update.T if update.shape[0] > update.shape[1] else update for update in updates]
        for name, orthogonal in zip(names, orthogonalise(torch.stack(lying)), strict=True):
            matrix = self._matrices[name]
            matrix.mul_(1 - rate * self._weight_decay)
            turned = orthogonal.T if matrix.shape[0] > matrix.shape[1] else orthogonal
            matrix.add_(turned, alpha=-0.2 * max(matrix.shape) ** 0.5 * rate)


def orthogonalise(x_MRC: Tensor) -> Tensor:
    """Return U V' of each matrix U S V', roughly: singular values between 0.7 and 1.2; bfloat16."""
    a, b, c = NEWTON_SCHULZ
    x_MRC = x_MRC.bfloat16()
    x_MRC = x_MRC / x_MRC.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram_MRR = x_MRC @ x_MRC.mT
        polynomial_MRR = torch.baddbmm(gram_MRR, gram_MRR, gram_MRR, beta=b, alpha=c)
        x_MRC = torch.baddbmm(x_MRC, polynomial_MRR, x_MRC, beta=a)
    return x_MRC
