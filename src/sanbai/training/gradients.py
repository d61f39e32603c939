"""Losses in parts: each part differentiated on its own, several at a time, the gradients added up in the parts' order.

Nothing is accumulated in parameters while parts run, so they cannot meet there; the order of the sum is fixed, so the
bits are the same however many threads there are. A part's gradient is added as soon as its turn has come, so that no
more of them lie in memory than parts are computed at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from threading import Lock

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


def differentiate(losses: Mapping[str, Sequence[LossPart]]) -> dict[str, Differentiated]:
    """Return each named loss, summed over its parts; all parts of all losses are computed together.

    Args:
        losses: the parts of one loss belong to one model; at least one each.
    """
    sums = {name: _OrderedSum() for name in losses}
    every = [(name, place, part) for name, parts in losses.items() for place, part in enumerate(parts)]

    def differentiate_part(numbered: tuple[str, int, LossPart]) -> tuple[str, float]:
        name, place, part = numbered
        loss = part.loss()
        sums[name].add(place, list(torch.autograd.grad(loss, learning(part.model), materialize_grads=True)))
        return name, loss.item()

    found = map_parts(differentiate_part, every)
    return {
        name: Differentiated(fsum(loss for of, loss in found if of == name), total.gradient)
        for name, total in sums.items()
    }


class _OrderedSum:
    """Gradients that come in any order, from any thread, and are added up in the order of their places."""

    def __init__(self) -> None:
        self.gradient: Gradient = []
        self._early: dict[int, Gradient] = {}
        self._next = 0
        self._lock = Lock()

    @torch.no_grad()
    def add(self, place: int, gradient: Gradient) -> None:
        """Add a gradient, or keep it until those before it have come."""
        with self._lock:
            self._early[place] = gradient
            while self._next in self._early:
                due = self._early.pop(self._next)
                if self._next == 0:
                    self.gradient = due
                else:
                    torch._foreach_add_(self.gradient, due)
                self._next += 1


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
