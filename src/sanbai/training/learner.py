"""A policy that practises, with what moves it and what it must not stray far from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sanbai.model.adapters.shared import copy_learning
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
        ptx_target_ratio: as for `add_policy_gradient`.
    """

    policy: LanguageModel
    reference: LanguageModel
    optimizer: Optimizer
    average: AverageWeights
    kept: Saved
    ptx_target_ratio: float | None = None

    @classmethod
    def gather(
        cls,
        policy: LanguageModel,
        recipe: OptimizerRecipe,
        *,
        ema_decay: float,
        keeps_average: bool,
        ptx_target_ratio: float | None = None,
    ) -> Learner:
        """Return the policy before its first step."""
        average = AverageWeights(policy, ema_decay)
        return cls(
            policy=policy,
            reference=copy_learning(policy),
            optimizer=Optimizer(policy, recipe),
            average=average,
            kept=average if keeps_average else Weights(policy),
            ptx_target_ratio=ptx_target_ratio,
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
        numbers = add_policy_gradient(self.policy, done, ptx_coef, target_ratio=self.ptx_target_ratio)
        numbers["grad_norm"] = self.optimizer.step(rate)
        self.average.update(self.policy)
        return numbers


def add_policy_gradient(
    policy: LanguageModel,
    done: Mapping[str, Differentiated],
    ptx_coef: float,
    *,
    target_ratio: float | None = None,
) -> dict[str, float]:
    """Add the gradient of practice's loss and, where there is one, of pretraining's; return losses, norm and ratio.

    Args:
        policy: its `.grad` are added to.
        done: `policy`, and `ptx` with γ in it; the latter's gradient may be scaled in place.
        ptx_coef: γ.
        target_ratio: how long pretraining's gradient is to be beside practice's, whatever γ; None: γ decides.
    """
    add_gradient(policy, done["policy"].gradient)
    norm = length(done["policy"].gradient)
    numbers = {"policy_loss": done["policy"].loss, "policy_grad_norm": norm}
    if "ptx" in done:
        gradient, ptx_norm, scale = done["ptx"].gradient, length(done["ptx"].gradient), 1.0
        if target_ratio is not None:
            scale = target_ratio * norm / max(ptx_norm, 1e-12)
            torch._foreach_mul_(gradient, scale)
        add_gradient(policy, gradient)
        numbers["ptx_loss"] = done["ptx"].loss / ptx_coef
        numbers["ptx_ratio"] = scale * ptx_norm / max(norm, 1e-12)
        numbers["ptx_coef"] = scale * ptx_coef
    return numbers
