"""LoRA (Hu et al. 2021, arXiv:2106.09685): W x + scale B A x beside a frozen W, with A and B thin.

Our query, key and value are one matrix, other programs' are three: each of them, and so each piece of rows, has factors
of its own.

Shapes: I inputs, O outputs of one piece, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanbai.model.adapters.recipe import AdapterRecipe

_generator: ContextVar[torch.Generator | None] = ContextVar("_generator", default=None)


@contextmanager
def drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Let dropout draw from this generator within the block and the thread; elsewhere it draws from torch's own."""
    token = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(token)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a matrix that belong to one module elsewhere."""

    module: str
    """Its name there."""
    start: int
    length: int


class LowRank(nn.Module):
    """The two factors of one piece."""

    def __init__(self, rows: Rows, num_inputs: int, rank: int, *, like: Tensor) -> None:
        super().__init__()
        self.rows = rows
        self.a = nn.Parameter(like.new_empty(rank, num_inputs))
        self.b = nn.Parameter(like.new_zeros(rows.length, rank))


class LowRankLinear(nn.Module):
    """A linear layer with factors beside it; its own weight and bias keep their names."""

    def __init__(self, base: nn.Linear, rows: Sequence[Rows], recipe: AdapterRecipe) -> None:
        """Put factors beside a layer, B 0 and A yet to be filled.

        Args:
            base: its parameters are taken over, not copied.
            rows: the pieces that get factors.
            recipe: rank, scale and dropout.
        """
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.scale, self.dropout = recipe.scale, recipe.dropout
        self.factors = nn.ModuleList([LowRank(each, base.in_features, recipe.rank, like=base.weight) for each in rows])

    @property
    def pieces(self) -> list[LowRank]:
        """The factors, in the order of their rows."""
        return [each for each in self.factors if isinstance(each, LowRank)]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw every A anew, uniform in ± 1 / sqrt(I); with B 0 the adapted layer is the base."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        for piece in self.pieces:
            piece.a.copy_(torch.empty(piece.a.shape).uniform_(-bound, bound, generator=generator))
            piece.b.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs [..., rows of W] of inputs [..., I]."""
        out = F.linear(x, self.weight, self.bias)
        for piece in self.pieces:
            added = F.linear(F.linear(self._drop(x), piece.a), piece.b) * self.scale
            out.narrow(-1, piece.rows.start, piece.rows.length).add_(added)
        return out

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the layer with W + scale B A for a weight, in memory of its own."""
        weight = self.weight.detach().clone()
        for piece in self.pieces:
            weight.narrow(0, piece.rows.start, piece.rows.length).add_(piece.b @ piece.a, alpha=self.scale)
        return as_linear(weight, self.bias)

    def base(self) -> nn.Linear:
        """Return the layer as it was, holding the same parameters."""
        return as_linear(self.weight, self.bias)

    def _drop(self, x: Tensor) -> Tensor:
        if not (self.training and self.dropout):
            return x
        kept = 1 - self.dropout
        mask = torch.empty_like(x, requires_grad=False).bernoulli_(kept, generator=_generator.get())
        return x * mask.div_(kept)


def as_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer that holds these numbers, uncopied; parameters stay the same objects."""
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight)
    if bias is not None:
        linear.bias = bias if isinstance(bias, nn.Parameter) else nn.Parameter(bias)
    return linear
