"""What a nat of KL costs: always the same, or steered so that the KL comes to a target.

Ziegler et al. 2019 (arXiv:1909.08593, section 2.2), as their code has it: after every iteration

    e = clip(KL / target - 1, -0.2, 0.2),   β ← β (1 + e · episodes / horizon)

with the KL in nats a response, and episodes (answers), not optimizer steps, counted. InstructGPT held β fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

#: Largest relative error of the KL that one iteration answers to.
LARGEST_ERROR = 0.2


class KlController:
    """β of a run. A part of the run that checkpoints save."""

    def __init__(self, coef: float, *, kind: Literal["fixed", "adaptive"], target: float, horizon: float) -> None:
        """Start with `coef`.

        Args:
            coef: β, 0 or more; a β of 0 stays 0.
            kind: whether it changes.
            target: nats a response, above 0.
            horizon: episodes in which an error of 1 would change β by its own size, above 0.
        """
        self.coef = coef
        """β of the iteration at hand."""
        self._kind, self._target, self._horizon = kind, target, horizon

    def see(self, kl: float, *, num_episodes: int) -> None:
        """Change β after an iteration, if it is to change at all.

        Args:
            kl: mean over the iteration's answers, in nats a response, as in the reward (k1).
            num_episodes: answers of the iteration.
        """
        if self._kind == "adaptive":
            error = min(max(kl / self._target - 1, -LARGEST_ERROR), LARGEST_ERROR)
            self.coef *= 1 + error * num_episodes / self._horizon

    def tensors(self) -> dict[str, Tensor]:
        """Return β."""
        return {"coef": torch.tensor(self.coef, dtype=torch.float64)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` gave."""
        self.coef = tensors["coef"].item()
