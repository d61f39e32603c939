"""Rows sorted into groups, each group times a matrix of its own: the product that a mixture of experts consists of.

One call for all groups. torch's grouped product pads nothing, so its work is that of the rows there are however
uneven the groups; 8 groups of about 512 rows take 5 % longer than one product of all (docs/experiments.md).
Where it has no kernel (float64, widths that are no multiple of 16 bytes, a torch without it) rows are padded to the
longest group for a batched product.

Shapes: N rows sorted by group, E groups, D and F widths, M rows of the longest group.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: torch's grouped product wants the rows of both operands to start at multiples of so many bytes.
ALIGNMENT = 16
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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
    if _has_kernel(rows_ND, matrices_EDF):
        out_NF: Tensor = F.grouped_mm(rows_ND, matrices_EDF, offs=count_E.cumsum(0, dtype=torch.int32))
        return out_NF
    return padded_product(rows_ND, matrices_EDF, count_E)


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
