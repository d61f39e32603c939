"""AdamW as one call a step: clip, set the rate, move, forget the gradients; its state is a flat dictionary of tensors.

Parameters, moments and updates are float32 whatever the products' precision (autocast casts copies), so the parameters
*are* the masters. Matrices decay, norms and biases do not.

Epsilon stands where PyTorch puts it, beside sqrt(v̂) after bias correction; TensorFlow's Adam of the first RLHF code
(eps 1e-5, outside the correction) is another optimizer in the first steps. 1e-8 is GPT-3's; with gradients far below it
raise it rather than the rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbai.foundation.errors import CheckpointError
from sanbai.foundation.recipe import RecipeSection


class AdamRecipe(RecipeSection):
    """Section `[<stage>.adam]`: everything about the optimizer but its rate."""

    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Memory of the gradient's mean."""
    beta2: float = Field(default=0.95, ge=0.0, lt=1.0)
    """Memory of the gradient's square; 0.95 is GPT-3's and InstructGPT's."""
    epsilon: float = Field(default=1e-8, gt=0.0, le=1.0)
    """Added to the root of the mean square, after bias correction."""
    weight_decay: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of each matrix that is taken away a step, times the rate; norms and biases keep theirs."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """Gradients longer than this are shortened to it."""


class Optimizer:
    """AdamW over the parameters of one model."""

    def __init__(self, model: nn.Module, recipe: AdamRecipe) -> None:
        """Start with empty moments; `load` continues.

        Args:
            model: on its final device; its parameters are changed in place.
            recipe: all but the rate.
        """
        self._named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._max_grad_norm = recipe.max_grad_norm
        decayed = [parameter for parameter in self._named.values() if parameter.dim() >= 2]
        kept = [parameter for parameter in self._named.values() if parameter.dim() < 2]
        groups = [
            {"params": parameters, "weight_decay": decay}
            for parameters, decay in ((decayed, recipe.weight_decay), (kept, 0.0))
            if parameters
        ]
        self._adam = torch.optim.AdamW(
            groups, lr=0.0, betas=(recipe.beta1, recipe.beta2), eps=recipe.epsilon, fused=True
        )

    def step(self, rate: float) -> float:
        """Apply the accumulated gradients and clear them.

        Returns:
            The gradients' norm before clipping.
        """
        norm = nn.utils.clip_grad_norm_(self._named.values(), self._max_grad_norm, foreach=True)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        return norm.item()

    def tensors(self) -> dict[str, Tensor]:
        """Return the whole state: `<parameter>/step`, `/exp_avg` and `/exp_avg_sq`; empty before the first step."""
        return {
            f"{name}/{key}": value
            for name, parameter in self._named.items()
            for key, value in self._adam.state.get(parameter, {}).items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave.

        Raises:
            CheckpointError: it is of other parameters.
        """
        states: dict[str, dict[str, Tensor]] = {}
        for path, value in tensors.items():
            name, _, key = path.rpartition("/")
            states.setdefault(name, {})[key] = value
        if states and (differing := sorted(states.keys() ^ self._named.keys())):
            raise CheckpointError(f"saved optimizer does not fit: {differing[0]} is only on one side; start anew")
        for name, state in states.items():
            parameter = self._named[name]
            moved = {key: value if key == "step" else value.to(parameter) for key, value in state.items()}
            self._adam.state[parameter] = moved


def gradients(model: nn.Module) -> list[Tensor]:
    """Return copies of the accumulated gradients, parameter by parameter; zeros where there are none yet."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


@torch.no_grad()
def norm_of(tensors: Sequence[Tensor]) -> float:
    """Length of all tensors as one vector."""
    return nn.utils.get_total_norm(tensors).item()
