"""Experts divided among processes: each keeps some, tokens travel to theirs and back (Fedus et al. 2021, section 5).

Two exchanges a layer and pass, all to all, with as many rows as each expert has readers: nothing is padded. Numbers are
those of one process that holds all experts, as long as capacity is not counted over a batch that is divided too.

Every process differentiates its own loss. The router's gradient, as any dense parameter's, is of that loss alone; an
expert's is of all processes' losses together. So where dense gradients are averaged over R processes, experts' are
divided by R.

Shapes: R processes, E experts, L = E / R experts here, A rows of this process, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def local_experts(num_experts: int, group: dist.ProcessGroup) -> slice:
    """Return which experts this process of the group keeps; R divides `num_experts`."""
    here = num_experts // group.size()
    return slice(group.rank() * here, (group.rank() + 1) * here)


def sum_over(group: dist.ProcessGroup, numbers: Tensor) -> Tensor:
    """Return the sum of all processes' numbers; without gradient."""
    total = numbers.clone()
    dist.all_reduce(total, group=group)
    return total


def read_elsewhere(
    rows_AD: Tensor, count_E: Tensor, group: dist.ProcessGroup, read: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return what the experts, wherever they are, make of this process's rows.

    Args:
        rows_AD: sorted by expert.
        count_E: how many rows each expert reads.
        group: the processes; all of them must call.
        read: what the experts here make of rows sorted by expert, given the count of each.
    """
    count_RL = count_E.view(group.size(), -1)
    theirs_RL = torch.empty_like(count_RL)
    dist.all_to_all_single(theirs_RL, count_RL, group=group)
    sent, received = count_RL.sum(dim=1).tolist(), theirs_RL.sum(dim=1).tolist()
    by_process: Tensor = _Exchange.apply(rows_AD, sent, received, group)  # type: ignore[no-untyped-call]
    expert_X = torch.arange(theirs_RL.shape[1], device=rows_AD.device).repeat(len(received))
    order = expert_X.repeat_interleave(theirs_RL.flatten()).argsort(stable=True)
    out = read(by_process.index_select(0, order), theirs_RL.sum(dim=0))
    out_AD: Tensor = _Exchange.apply(out.index_select(0, order.argsort()), received, sent, group)  # type: ignore[no-untyped-call]
    return out_AD


class _Exchange(torch.autograd.Function):
    """Rows to every process and from every process; the gradient goes the way back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _exchange(rows, sent, received, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchange(gradient, ctx.received, ctx.sent, ctx.group), None, None, None


def _exchange(rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    out = rows.new_empty(sum(received), rows.shape[1])
    dist.all_to_all_single(out, rows.contiguous(), received, sent, group=group)
    return out
