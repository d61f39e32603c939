"""Several LoRA adapters over one base in one pass: each row of it has its own, or none.

The base's modules stay as they are, packed or not; what stands beside them adds its products to the rows that want them
(Sheng et al. 2023, arXiv:2311.03285, do the same with kernels of their own). Rows are grouped by adapter, so a pass
costs two thin products more for each adapter in it, not for each row.

Shapes: N rows of the pass, A of them with one adapter, I inputs, O outputs of one piece, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sanbai.foundation.errors import ModelError, UnknownNameError, UsageError
from sanbai.model.adapters.adapter import Adapted


class Product(NamedTuple):
    """What one adapter adds to some outputs of one linear layer: x A' B'."""

    start: int
    """The first of the outputs."""
    a_RI: Tensor
    b_OR: Tensor
    """With the adapter's scale in it."""


@dataclass(frozen=True, slots=True)
class LowRankAdapter:
    """An adapter taken from the model that it was trained in, or read from a folder with."""

    products: Mapping[str, Sequence[Product]]
    """By the name of the linear layer."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all numbers by name, as a digest wants them."""
        return {
            f"{name}.{product.start}.{part}": tensor
            for name, products in self.products.items()
            for product in products
            for part, tensor in (("a", product.a_RI), ("b", product.b_OR))
        }


@torch.no_grad()
def take_products(adapted: Adapted) -> LowRankAdapter:
    """Return copies of an adapter's numbers; the model it is in stays as it is.

    Raises:
        ModelError: it is not LoRA.
    """
    if adapted.recipe.method != "lora":
        raise ModelError(f"an adapter of method {adapted.recipe.method}; only lora can stand beside others")
    return LowRankAdapter(
        {
            name: [
                Product(piece.rows.start, piece.a.detach().clone(), piece.b.detach() * linear.scale)
                for piece in linear.pieces
            ]
            for name, linear in adapted.linears()
        }
    )


class SeveralAdapters:
    """A model's adapters by name; a live resource, used by one thread."""

    def __init__(self, model: nn.Module) -> None:
        """Begin with none; the model has no adapter of its own."""
        self._model = model
        self._adapters: dict[str, LowRankAdapter] = {}
        self._handles: dict[str, RemovableHandle] = {}
        self._rows: dict[str, Tensor] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._adapters

    def add(self, name: str, adapter: LowRankAdapter) -> None:
        """Take an adapter up, in the model's precision and on its device.

        Raises:
            UsageError: the name is taken.
            ModelError: it stands beside a layer that is not there, or of another shape; nothing has changed.
        """
        if name in self._adapters:
            raise UsageError(f"an adapter {name} is there already; remove it first, or take another name")
        weights = {module: self._weight(module, products) for module, products in adapter.products.items()}
        self._adapters[name] = LowRankAdapter(
            {
                module: [Product(start, a.to(weights[module]), b.to(weights[module])) for start, a, b in products]
                for module, products in adapter.products.items()
            }
        )
        for module in adapter.products.keys() - self._handles.keys():
            self._handles[module] = self._model.get_submodule(module).register_forward_hook(partial(self._add, module))

    def remove(self, name: str) -> None:
        """Let an adapter go.

        Raises:
            UnknownNameError: there is none of this name.
        """
        if name not in self._adapters:
            raise UnknownNameError(f"no adapter {name}; there are: {', '.join(sorted(self._adapters)) or 'none'}")
        del self._adapters[name]
        used = {module for adapter in self._adapters.values() for module in adapter.products}
        for module in self._handles.keys() - used:
            self._handles.pop(module).remove()

    def route(self, names: Sequence[str | None]) -> None:
        """Say which adapter each row of the next pass has, None for the base alone; nobody's, after it."""
        places: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            if name is not None:
                places.setdefault(name, []).append(place)
        device = next(self._model.parameters()).device
        self._rows = {name: torch.tensor(rows, device=device) for name, rows in places.items()}

    def _add(self, module: str, _: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> Tensor:
        """Add to a layer's outputs [N, ..., outputs], in place."""
        x: Tensor = inputs[0]
        for name, row_A in self._rows.items():
            for start, a_RI, b_OR in self._adapters[name].products.get(module, ()):
                added = F.linear(F.linear(x[row_A], a_RI), b_OR)
                out.narrow(-1, start, b_OR.shape[0]).index_add_(0, row_A, added)
        return out

    def _weight(self, module: str, products: Sequence[Product]) -> Tensor:
        try:
            weight = self._model.get_parameter(f"{module}.weight")
        except AttributeError:
            raise ModelError(f"{module}: an adapter stands beside it, and the model has no such layer") from None
        for start, a_RI, b_OR in products:
            if a_RI.shape[1] != weight.shape[1] or start + b_OR.shape[0] > weight.shape[0]:
                raise ModelError(
                    f"{module}: an adapter of {a_RI.shape[1]} inputs and outputs up to {start + b_OR.shape[0]}; the "
                    f"model's layer has {weight.shape[1]} and {weight.shape[0]}, so it belongs to another model"
                )
        return weight
