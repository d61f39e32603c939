"""The brake of PPO: a second judge, a KL budget, and the best weights so far.

A policy learns to please its judge beyond what the judge was taught (Gao et al. 2022, arXiv:2210.10760): the reward
goes on rising while people like the answers less. So another reward model, trained on other labelers, scores answers
to held-out prompts; the weights that it likes best within the KL budget are the ones that are kept, and training ends
when it has not seen better for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Literal

import torch
from torch import Tensor

StopReason = Literal["", "patience", "kl_budget"]
_REASONS: tuple[StopReason, ...] = ("", "patience", "kl_budget")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was seen on the held-out prompts after some iterations.

    Attributes:
        step: iterations done.
        judge_reward: mean reward by the second judge.
        reward: mean reward by the judge that is trained against.
        kl: mean KL to the reference, nats a response.
    """

    step: int
    judge_reward: float
    reward: float
    kl: float


class Brake:
    """Keeps the best weights and says when to stop. A part of the run that checkpoints save."""

    def __init__(self, *, patience: int, kl_budget: float) -> None:
        """Start without a verdict; the first, before training, is the one to beat.

        Args:
            patience: verdicts without a better one before stopping.
            kl_budget: nats a response; weights beyond it are never the best, and end training.
        """
        self._patience, self.kl_budget = patience, kl_budget
        self.verdicts: list[Verdict] = []
        """All so far."""
        self._best = 0
        self.best_weights: dict[str, Tensor] = {}
        """The weights to keep."""
        self.stop_reason: StopReason = ""
        """Empty while training may go on."""

    @property
    def first(self) -> Verdict:
        """The verdict on the weights before training."""
        return self.verdicts[0]

    @property
    def best(self) -> Verdict:
        """The verdict on the weights to keep."""
        return self.verdicts[self._best]

    def see(self, verdict: Verdict, weights: Mapping[str, Tensor]) -> None:
        """Take a verdict on `weights` into account; they are copied if they are the best so far."""
        self.verdicts.append(verdict)
        within = verdict.kl <= self.kl_budget
        if len(self.verdicts) == 1 or (within and verdict.judge_reward > self.best.judge_reward):
            self._best = len(self.verdicts) - 1
            self.best_weights = {name: weight.detach().clone() for name, weight in weights.items()}
        if not within:
            self.stop_reason = "kl_budget"
        elif len(self.verdicts) - 1 - self._best >= self._patience:
            self.stop_reason = "patience"

    def tensors(self) -> dict[str, Tensor]:
        """Return the best weights, all verdicts, and where the brake stands."""
        return {
            **{f"weight:{name}": weight for name, weight in self.best_weights.items()},
            "verdicts": torch.tensor([astuple(verdict) for verdict in self.verdicts], dtype=torch.float64),
            "place": torch.tensor([self._best, _REASONS.index(self.stop_reason)]),
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` gave."""
        prefix = "weight:"
        self.best_weights = {
            name.removeprefix(prefix): weight for name, weight in tensors.items() if name.startswith(prefix)
        }
        self.verdicts = [Verdict(int(step), *numbers) for step, *numbers in tensors["verdicts"].tolist()]
        self._best, reason = tensors["place"].tolist()
        self.stop_reason = _REASONS[reason]
