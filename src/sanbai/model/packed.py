"""Linear layers whose weights a CPU's matrix product reads as they lie.

For many rows: oneDNN reorders a plain bfloat16 weight in every call, which for few rows costs more than the product; 16
rows and a matrix of 1536 by 384 take 119 microseconds packed and 158 plain, 2,048 rows 12,300 and 13,300 (one core with
AMX). What follows the product (bias, activation, gate, residual) is computed before the result is rounded, in the same
call. For one row: a form that comes from memory faster (`row_product.py`), of as many bits as wanted. Of sixteen bits
there is none for a large model where a CPU has a matrix unit: the packed weights come from memory faster there
(`CACHED_WEIGHTS`).

float32 gains nothing, so only bfloat16 is packed. For decoding alone: no gradient, and after the weights change
`repack` must be called.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sanbai.foundation.device import has_matrix_tiles
from sanbai.foundation.errors import ModelError
from sanbai.model.block import ACTIVATIONS
from sanbai.model.config import FeedForwardKind
from sanbai.model.row_product import HalfMatrix, Int4Matrix, Int8Matrix, RowProduct, can_multiply_rows

NUM_ROWS = 16
"""Rows the packing is laid out for; laid out for 1 or 64 it is as fast, within what can be told apart."""

CACHED_WEIGHTS = 1 << 25
"""Of the layers of a model that may well stay in a processor's cache. With AMX, microseconds of one row by 3072 x 768
weights of 16 bits: from memory 390 packed and 554 by `HalfMatrix`, from a cache 245 and 252; small ones by 1536 x 384
from a cache 91 and 72."""

Bits = Literal[16, 8, 4]
"""Of a weight."""

ROW_PRODUCTS: dict[Bits, type[RowProduct]] = {16: HalfMatrix, 8: Int8Matrix, 4: Int4Matrix}
"""Of one row."""

FUSED: dict[FeedForwardKind, tuple[str, str]] = {
    "swiglu": ("swish", ""),
    "geglu": ("gelu", "none"),
    "geglu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}
"""Activations that oneDNN computes along with a product, by its names."""


class PackedLinear(nn.Module):
    """A linear layer that shares its parameters with the one it was made from, under the same names."""

    def __init__(self, weight: Tensor, bias: Tensor | None, bits: Bits = 16, *, by_rows: bool) -> None:
        """Pack.

        Args:
            weight: bfloat16, kept unrounded.
            bias: added.
            bits: that a weight is rounded to.
            by_rows: whether one row is multiplied in a form of its own.
        """
        super().__init__()
        self.weight, self.bias, self.bits, self.by_rows = weight, bias, bits, by_rows
        self.pack()

    def pack(self) -> None:
        """Reorder and round the weight anew."""
        kind = ROW_PRODUCTS[self.bits]
        self._row_product = kind(self.weight, self.bias) if self.by_rows else None
        rounded = kind.rounded(self.weight.detach()).bfloat16()
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(rounded, NUM_ROWS)  # noqa: SLF001

    def forward(self, x: Tensor) -> Tensor:
        """Return x weight' + bias."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")  # noqa: SLF001
        return out

    def fused(
        self,
        x_RI: Tensor,
        *,
        activation: FeedForwardKind | None = None,
        times: Tensor | None = None,
        plus: Tensor | None = None,
    ) -> Tensor:
        """Return f(x weight' + bias), or (x weight' + bias) times, or x weight' + bias + plus.

        Args:
            x_RI: R rows in bfloat16; or one in float32, which is multiplied in the form for one row.
            activation: f.
            times: of the result's shape.
            plus: of the result's shape.

        Returns:
            In the precision of `x_RI`.
        """
        if x_RI.dtype == torch.float32:
            return self._one_row(x_RI, activation, times, plus)
        if (other := times if plus is None else plus) is not None:
            out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(  # noqa: SLF001
                x_RI, other, self._packed, self.bias, "mul" if plus is None else "add"
            )
            return out
        if activation is not None and activation in FUSED:
            name, kind = FUSED[activation]
            return torch.ops.mkldnn._linear_pointwise(x_RI, self._packed, self.bias, name, [], kind)  # type: ignore[no-any-return]  # noqa: SLF001
        plain: Tensor = self(x_RI)
        return plain if activation is None else ACTIVATIONS[activation](plain)

    def _one_row(
        self, x_1I: Tensor, activation: FeedForwardKind | None, times: Tensor | None, plus: Tensor | None
    ) -> Tensor:
        assert self._row_product is not None
        y_1O = self._row_product(x_1I)
        if activation is not None:
            y_1O = ACTIVATIONS[activation](y_1O)
        if times is not None:
            y_1O = y_1O * times
        return y_1O if plus is None else plus + y_1O


def fused_linear(
    linear: nn.Module,
    x_RI: Tensor,
    *,
    activation: FeedForwardKind | None = None,
    times: Tensor | None = None,
    plus: Tensor | None = None,
) -> Tensor:
    """Return what `PackedLinear.fused` does, of any linear layer."""
    if isinstance(linear, PackedLinear):
        return linear.fused(x_RI, activation=activation, times=times, plus=plus)
    out: Tensor = linear(x_RI)
    if activation is not None:
        out = ACTIVATIONS[activation](out)
    if times is not None:
        out = out * times
    return out if plus is None else plus + out


def can_pack(weight: Tensor) -> bool:
    """Return whether packing this weight is possible here, and gains."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
    )


def pack_linears(model: nn.Module, bits: Bits = 16, *, besides: Collection[nn.Parameter] = ()) -> None:
    """Replace a model's linear layers where packing gains.

    Args:
        model: changed.
        bits: of a weight.
        besides: weights that stay as they are.

    Raises:
        ModelError: fewer than 16 bits where nothing can be packed, or in a shape that has no such form.
    """
    kept = set(map(id, besides))
    linears = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) and id(child.weight) not in kept
    ]
    by_rows = can_multiply_rows() and (bits < 16 or not _packed_comes_faster([child.weight for *_, child in linears]))
    for parent, name, child in linears:
        if can_pack(child.weight) and (bits == 16 or by_rows):
            setattr(parent, name, PackedLinear(child.weight, child.bias, bits, by_rows=by_rows))
        elif bits < 16:
            raise ModelError(
                f"weights of {bits} bits need an x86 processor with bfloat16 products; take another precision"
            )


def first_packed(model: nn.Module) -> PackedLinear | None:
    """Return one of the layers that `pack_linears` has put in, which are alike; None where there are none."""
    return next((module for module in model.modules() if isinstance(module, PackedLinear)), None)


def _packed_comes_faster(weights: Sequence[Tensor]) -> bool:
    """Return whether the packing for many rows multiplies one row of a model of these weights faster, in 16 bits."""
    return sum(weight.numel() for weight in weights) > CACHED_WEIGHTS and has_matrix_tiles(weights[0])


def repack(model: nn.Module) -> None:
    """Pack anew what `pack_linears` has replaced, after the weights have changed."""
    for module in model.modules():
        if isinstance(module, PackedLinear):
            module.pack()
