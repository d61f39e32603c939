"""AdamW, and Muon for the blocks' matrices where asked, as one call a step; the state is a flat dictionary of tensors.

A step clips, sets the rate, moves and forgets the gradients.

Parameters, moments and updates are float32 whatever the products' precision (autocast casts copies), so the parameters
*are* the masters. Matrices decay, norms and biases do not.

Epsilon stands where PyTorch puts it, beside sqrt(v̂) after bias correction; TensorFlow's Adam of the first RLHF code
(eps 1e-5, outside the correction) is another optimizer in the first steps. 1e-8 is GPT-3's; with gradients far below it
raise it rather than the rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbai.foundation.errors import CheckpointError
from sanbai.foundation.recipe import RecipeSection
from sanbai.training.muon import Muon

MOMENTUM = "momentum_buffer"


class OptimizerRecipe(RecipeSection):
    """Section `[<stage>.optimizer]`: everything about the optimizer but its rate."""

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
    matrices: Literal["adamw", "muon"] = "adamw"
    """`muon`: the blocks' matrices are moved by the orthogonalised momentum instead (Jordan 2024), scaled to AdamW's
    usual size of an update, so that one rate serves both (Liu et al. 2025, arXiv:2502.16982); embeddings, heads and
    vectors stay with AdamW."""
    muon_momentum: float = Field(default=0.95, ge=0.0, lt=1.0)
    """Memory of Muon's momentum."""


class Optimizer:
    """AdamW over the parameters of one model."""

    def __init__(self, model: nn.Module, recipe: OptimizerRecipe) -> None:
        """Start with empty moments; `load` continues.

        Args:
            model: on its final device; its parameters are changed in place.
            recipe: all but the rate.
        """
        self._named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._max_grad_norm = recipe.max_grad_norm
        by_muon = self._named.keys() & set(_block_matrices(model)) if recipe.matrices == "muon" else set()
        by_adam = [parameter for name, parameter in self._named.items() if name not in by_muon]
        self._adamw = torch.optim.AdamW(
            _decay_groups(by_adam, recipe.weight_decay),
            lr=0.0,
            betas=(recipe.beta1, recipe.beta2),
            eps=recipe.epsilon,
            fused=True,
        )
        matrices = {name: self._named[name] for name in by_muon}
        self._muon = Muon(matrices, momentum=recipe.muon_momentum, weight_decay=recipe.weight_decay)

    def step(self, rate: float) -> float:
        """Apply the accumulated gradients and clear them.

        Returns:
            The gradients' norm before clipping.
        """
        norm = nn.utils.clip_grad_norm_(self._named.values(), self._max_grad_norm, foreach=True)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        self._adamw.step()
        self._muon.step(rate)
        for parameter in self._named.values():
            parameter.grad = None
        return norm.item()

    def tensors(self) -> dict[str, Tensor]:
        """Return the whole state, empty before the first step.

        `<parameter>/step`, `/exp_avg` and `/exp_avg_sq` of AdamW, `/momentum_buffer` of Muon.
        """
        moments = {
            f"{name}/{key}": value
            for name, parameter in self._named.items()
            for key, value in self._adamw.state.get(parameter, {}).items()
        }
        return moments | {f"{name}/{MOMENTUM}": buffer for name, buffer in self._muon.buffers.items()}

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
            if MOMENTUM in moved:
                self._muon.buffers[name] = moved[MOMENTUM]
            else:
                self._adamw.state[parameter] = moved


def _block_matrices(model: nn.Module) -> list[str]:
    """Return the names of the matrices inside the blocks, that is `ModuleList`s; embeddings and heads lie outside."""
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and any(name.startswith(f"{prefix}.") for prefix in lists)
    ]


def _decay_groups(parameters: Sequence[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Return the groups of matrices, which decay, and of vectors, which do not."""
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    groups = ({"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]
