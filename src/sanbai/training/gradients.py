"""Losses in parts: each part differentiated on its own, several at a time, the gradients added up in the parts' order.

Nothing is accumulated in parameters while parts run, so they cannot meet there; the order of the sum is fixed, so the
bits are the same however many threads there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

import torch
from torch import Tensor, nn

from sanbai.foundation.parallel import map_parts

Gradient = list[Tensor]
"""One tensor for each parameter that learns, in the model's order."""


@dataclass(frozen=True, slots=True)
class LossPart:
    """One of the parts that add up to a loss of a model."""

    model: nn.Module
    loss: Callable[[], Tensor]
    """Computes the part with its graph; called once, maybe in another thread."""


@dataclass(frozen=True, slots=True)
class Differentiated:
    """A loss's value and its gradient."""

    loss: float
    gradient: Gradient


def differentiate(
    losses: Mapping[str, Sequence[LossPart]], *, before_part: Callable[[], None] | None = None
) -> dict[str, Differentiated]:
    """Return each named loss, summed over its parts; all parts of all losses are computed together.

    Args:
        losses: the parts of one loss belong to one model; at least one each.
        before_part: called before each, in its thread; what it raises ends the work.
    """

    def differentiate_part(part: LossPart) -> Differentiated:
        if before_part is not None:
            before_part()
        return _differentiate_part(part)

    every = [part for parts in losses.values() for part in parts]
    done = iter(map_parts(differentiate_part, every))
    return {name: _sum([next(done) for _ in parts]) for name, parts in losses.items()}


def _differentiate_part(part: LossPart) -> Differentiated:
    loss = part.loss()
    gradient = torch.autograd.grad(loss, learning(part.model), materialize_grads=True)
    return Differentiated(loss.item(), list(gradient))


@torch.no_grad()
def _sum(parts: Sequence[Differentiated]) -> Differentiated:
    first, *rest = (part.gradient for part in parts)
    for gradient in rest:
        torch._foreach_add_(first, gradient)
    return Differentiated(fsum(part.loss for part in parts), first)


def learning(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that learn."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@torch.no_grad()
def add_gradient(model: nn.Module, gradient: Gradient) -> None:
    """Add a gradient to what the parameters hold already."""
    for parameter, tensor in zip(learning(model), gradient, strict=True):
        parameter.grad = tensor if parameter.grad is None else parameter.grad + tensor


@torch.no_grad()
def length(gradient: Gradient) -> float:
    """Return the length of all tensors as one vector."""
    return nn.utils.get_total_norm(gradient).item()
