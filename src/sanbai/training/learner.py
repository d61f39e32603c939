"""A policy that practises, with what moves it and what it must not stray far from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from sanbai.model.heads import LanguageModel
from sanbai.training.checkpoint import Saved, Weights
from sanbai.training.ema import AverageWeights
from sanbai.training.gradients import Differentiated, add_gradient, length
from sanbai.training.optimizer import Optimizer, OptimizerRecipe


@dataclass(frozen=True, slots=True)
class Learner:
    """The policy in all its states.

    Attributes:
        policy: learns.
        reference: the policy as it was; never changes.
        optimizer: the policy's.
        average: of the policy's weights.
        kept: the weights that would be kept: the average's or the policy's.
    """

    policy: LanguageModel
    reference: LanguageModel
    optimizer: Optimizer
    average: AverageWeights
    kept: Saved

    @classmethod
    def gather(
        cls, policy: LanguageModel, recipe: OptimizerRecipe, *, ema_decay: float, keeps_average: bool
    ) -> Learner:
        """Return the policy before its first step."""
        average = AverageWeights(policy, ema_decay)
        return cls(
            policy=policy,
            reference=copy.deepcopy(policy),
            optimizer=Optimizer(policy, recipe),
            average=average,
            kept=average if keeps_average else Weights(policy),
        )

    def saved(self) -> dict[str, Saved]:
        """Return the parts that change, by name."""
        return {"policy": Weights(self.policy), "optimizer": self.optimizer, "average": self.average}

    @contextmanager
    def with_kept_weights(self) -> Iterator[LanguageModel]:
        """Lend the policy with the weights that would be kept in the place of its own; nothing is copied."""
        kept = self.kept.tensors()
        own = {name: parameter.data for name, parameter in self.policy.named_parameters() if name in kept}
        try:
            self._put_on(kept)
            yield self.policy
        finally:
            self._put_on(own)

    def _put_on(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            self.policy.get_parameter(name).data = weight

    def step(self, done: Mapping[str, Differentiated], rate: float, *, ptx_coef: float) -> dict[str, float]:
        """Take one optimizer step along the sum of the gradients; return losses and norms.

        Args:
            done: as `add_policy_gradient` wants it.
            rate: of this step.
            ptx_coef: γ.
        """
        numbers = add_policy_gradient(self.policy, done, ptx_coef)
        numbers["grad_norm"] = self.optimizer.step(rate)
        self.average.update(self.policy)
        return numbers


def add_policy_gradient(policy: LanguageModel, done: Mapping[str, Differentiated], ptx_coef: float) -> dict[str, float]:
    """Add the gradient of practice's loss and, where there is one, of γ times pretraining's; return losses and ratio.

    Args:
        policy: its `.grad` are added to.
        done: `policy`, and `ptx` with γ in it.
        ptx_coef: γ.
    """
    add_gradient(policy, done["policy"].gradient)
    numbers = {"policy_loss": done["policy"].loss}
    if "ptx" in done:
        add_gradient(policy, done["ptx"].gradient)
        numbers["ptx_loss"] = done["ptx"].loss / ptx_coef
        numbers["ptx_ratio"] = length(done["ptx"].gradient) / max(length(done["policy"].gradient), 1e-12)
    return numbers
