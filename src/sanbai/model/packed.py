"""Linear layers whose weight a CPU's matrix product reads as it lies.

oneDNN reorders a plain bfloat16 weight in every call, which for few rows costs more than the product: one row and a
matrix of 1536 by 384 take 39 microseconds packed and 82 plain, 16 rows 119 and 158, 2,048 rows 12,300 and 13,300 (one
core with AMX). Every result had the same bits. float32 gains nothing at one row, so only bfloat16 is packed.

For decoding alone: no gradient, and after the weights change `pack` must be called again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NUM_ROWS = 16
"""Rows the packing is laid out for; laid out for 1 or 64 it is as fast, within what can be told apart."""


class PackedLinear(nn.Module):
    """A linear layer that shares its parameters with the one it was made from, under the same names."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Pack."""
        super().__init__()
        self.weight, self.bias = weight, bias
        self.pack()

    def pack(self) -> None:
        """Reorder the weight anew."""
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), NUM_ROWS)  # noqa: SLF001

    def forward(self, x: Tensor) -> Tensor:
        """Return x weight' + bias."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")  # noqa: SLF001
        return out


def can_pack(weight: Tensor) -> bool:
    """Return whether packing this weight is possible here, and gains."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
    )


def pack_linears(model: nn.Module) -> None:
    """Replace a model's linear layers where packing gains."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and can_pack(child.weight):
                setattr(parent, name, PackedLinear(child.weight, child.bias))


def is_packed(model: nn.Module) -> bool:
    """Return whether `pack_linears` has replaced anything."""
    return any(isinstance(module, PackedLinear) for module in model.modules())


def repack(model: nn.Module) -> None:
    """Pack anew what `pack_linears` has replaced, after the weights have changed."""
    for module in model.modules():
        if isinstance(module, PackedLinear):
            module.pack()
