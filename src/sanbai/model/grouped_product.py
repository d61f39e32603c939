"""Rows sorted into groups, each group times a matrix of its own: the product that a mixture of experts consists of.

One call for all groups. torch's grouped product pads nothing, so its work is that of the rows there are however
uneven the groups; 8 groups of about 512 rows take 5 % longer than one product of all (docs/experiments.md). On a CPU
with matrix tiles (AMX) a kernel is compiled for each number of rows, which takes longer than the product itself: there
`filled_groups` makes do with few numbers.
Where it has no kernel (float64, widths that are no multiple of 16 bytes, a torch without it) rows are padded to the
longest group for a batched product.

Shapes: N rows sorted by group, E groups, D and F widths, M rows of the longest group, P rows of all filled groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sanbai.foundation.device import has_matrix_tiles

#: torch's grouped product wants the rows of both operands to start at multiples of so many bytes.
ALIGNMENT = 16
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: Filled groups are multiples of so many rows: of 8 groups of about 512 rows, about ten numbers, 3 % more rows.
FILLED = 32


@dataclass(frozen=True)
class Groups:
    """Groups of rows with others between them, or as they are.

    Attributes:
        count_E: rows of each group, with those that fill it.
        row_P: which of the N rows stands in each place; None where nothing is filled.
        place_N: where each row went; None where nothing is filled.
    """

    count_E: Tensor
    row_P: Tensor | None = None
    place_N: Tensor | None = None


def filled_groups(rows_ND: Tensor, count_E: Tensor) -> Groups:
    """Fill groups up to multiples of `FILLED` rows where products of few different sizes are faster.

    A group is filled with copies of the first row, whose products nobody reads; so their gradient is 0.

    Args:
        rows_ND: sorted by group.
        count_E: rows of each group.
    """
    if len(rows_ND) < FILLED * len(count_E) or not has_matrix_tiles(rows_ND):
        return Groups(count_E)
    filled_E = (count_E + FILLED - 1) // FILLED * FILLED
    moved_E = (filled_E - count_E).cumsum(0) - (filled_E - count_E)
    place_N = torch.arange(len(rows_ND)) + moved_E.repeat_interleave(count_E)
    row_P = torch.zeros(int(filled_E.sum()), dtype=torch.int64)
    row_P[place_N] = torch.arange(len(rows_ND))
    return Groups(filled_E, row_P, place_N)


def grouped_product(rows_ND: Tensor, matrices_EDF: Tensor, count_E: Tensor) -> Tensor:
    """Return out_NF: the first count_E[0] rows times the first matrix, the next count_E[1] times the second, ...

    Args:
        rows_ND: sorted by group.
        matrices_EDF: one a group.
        count_E: integers that add up to N; zeros are welcome.

    Returns:
        Of autocast's dtype where autocast is on, as every product; else of the operands'.
    """
    if torch.is_autocast_enabled(rows_ND.device.type):
        dtype = torch.get_autocast_dtype(rows_ND.device.type)
        rows_ND, matrices_EDF = rows_ND.to(dtype), matrices_EDF.to(dtype)
    if not _has_kernel(rows_ND, matrices_EDF):
        return padded_product(rows_ND, matrices_EDF, count_E)
    end_E = count_E.cumsum(0, dtype=torch.int32)
    can_be_turned = len(rows_ND) * rows_ND.element_size() % ALIGNMENT == 0
    product = _TiledProduct.apply if can_be_turned and has_matrix_tiles(rows_ND) else _kernel
    out_NF: Tensor = product(rows_ND, matrices_EDF, end_E)
    return out_NF


def _kernel(rows: Tensor, matrices: Tensor, end_E: Tensor) -> Tensor:
    out: Tensor = F.grouped_mm(rows, matrices, offs=end_E)
    return out


class _TiledProduct(torch.autograd.Function):
    """The kernel, with a gradient of the matrices that a CPU's matrix unit is quicker at.

    A product is slow there whose left side is read down its columns. So that side is turned first, and of the two
    ways to say the gradient, rows^T out' and (out'^T rows)^T, the one is taken that is laid out as the matrices are.
    """

    @staticmethod
    def forward(ctx: Any, rows_ND: Tensor, matrices_EDF: Tensor, end_E: Tensor) -> Tensor:
        ctx.save_for_backward(rows_ND, matrices_EDF, end_E)
        return _kernel(rows_ND, matrices_EDF, end_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NF: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows_ND, matrices_EDF, end_E = ctx.saved_tensors
        gradient_NF = gradient_NF.contiguous()
        of_rows = of_matrices = None
        if ctx.needs_input_grad[0]:
            of_rows = _kernel(gradient_NF, matrices_EDF.transpose(1, 2), end_E)
        if ctx.needs_input_grad[1]:
            if matrices_EDF.is_contiguous():
                of_matrices = _kernel(rows_ND.t().contiguous(), gradient_NF, end_E)
            else:
                of_matrices = _kernel(gradient_NF.t().contiguous(), rows_ND, end_E).transpose(1, 2)
        return of_rows, of_matrices, None


def padded_product(rows_ND: Tensor, matrices_EDF: Tensor, count_E: Tensor) -> Tensor:
    """Return the same as `grouped_product` by one batched product of groups padded to the longest."""
    E, D, F_ = matrices_EDF.shape
    M = int(count_E.max())
    group_N = torch.arange(E, device=count_E.device).repeat_interleave(count_E)
    start_E = count_E.cumsum(0) - count_E
    slot_N = group_N * M + torch.arange(len(group_N), device=count_E.device) - start_E[group_N]
    padded_EMD = rows_ND.new_zeros(E * M, D).index_copy(0, slot_N, rows_ND).view(E, M, D)
    return torch.bmm(padded_EMD, matrices_EDF).view(E * M, F_).index_select(0, slot_N)


def _has_kernel(rows_ND: Tensor, matrices_EDF: Tensor) -> bool:
    step = ALIGNMENT // rows_ND.element_size()
    aligned = all(width % step == 0 for width in matrices_EDF.shape[1:])
    return aligned and len(rows_ND) > 0 and rows_ND.dtype in KERNEL_DTYPES and hasattr(F, "grouped_mm")
