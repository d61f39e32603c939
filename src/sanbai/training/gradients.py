"""Losses in parts: each part differentiated on its own, several at a time, the gradients added up in the parts' order.

Nothing is accumulated in parameters while parts run, so they cannot meet there; the order of the sum is fixed, so the
bits are the same however many threads there are. A gradient is added as soon as those before it are, and let go: with
one thread there are never more than two of a loss.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

import torch
from torch import Tensor, nn

from sanbai.foundation.parallel import map_parts

Gradient = list[Tensor]
"""One tensor for each parameter that learns, in the model's order."""
Place = tuple[str, int]
"""A part: its loss's name, and its number there."""


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
    sums = Sums()

    def differentiate_part(place: Place) -> None:
        if before_part is not None:
            before_part()
        name, number = place
        sums.add(place, *gradient_of(losses[name][number]))

    map_parts(differentiate_part, [(name, number) for name, parts in losses.items() for number in range(len(parts))])
    return sums.done()


def gradient_of(part: LossPart) -> tuple[float, Gradient]:
    """Return a part's loss and its gradient."""
    loss = part.loss()
    return loss.item(), list(torch.autograd.grad(loss, learning(part.model), materialize_grads=True))


class Sums:
    """Several losses as their parts come in, in whatever order: their gradients are added up in the parts' order."""

    def __init__(self) -> None:
        self._losses: dict[str, dict[int, float]] = {}
        self._gradients: dict[str, _OrderedSum] = {}
        self._lock = threading.Lock()

    def add(self, place: Place, loss: float, gradient: Gradient) -> None:
        """Take a part in; used by several threads."""
        name, number = place
        with self._lock:
            self._losses.setdefault(name, {})[number] = loss
            total = self._gradients.setdefault(name, _OrderedSum())
        total.add(number, gradient)

    def done(self) -> dict[str, Differentiated]:
        """Return each loss with its gradient; all parts are in."""
        return {
            name: Differentiated(fsum(losses.values()), self._gradients[name].total)
            for name, losses in self._losses.items()
        }


class _OrderedSum:
    """Adds gradients up in their order, whatever order they come in; used by several threads."""

    def __init__(self) -> None:
        self.total: Gradient = []
        self._waiting: dict[int, Gradient] = {}
        self._next = 0
        self._lock = threading.Lock()

    @torch.no_grad()
    def add(self, number: int, gradient: Gradient) -> None:
        """Take the gradient of a part, and add it once those of all parts before it are there."""
        with self._lock:
            self._waiting[number] = gradient
            while (following := self._waiting.pop(self._next, None)) is not None:
                if self._next:
                    torch._foreach_add_(self.total, following)
                else:
                    self.total = following
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
