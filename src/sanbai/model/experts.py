"""A mixture of experts in the place of a feed-forward: each token is read by the experts that a router picks.

Switch Transformer (Fedus et al. 2021, arXiv:2101.03961) with one choice a token, GShard's and Mixtral's with two.
out = sum_k gate_k expert_k(x); a token whose expert is full gets 0 and passes by the residual. Choices are sorted by
expert and all experts multiplied at once (`grouped_product.py`); `routing.py` says who is read by whom.

The router is in float32 at least, also under autocast: an all-bfloat16 router diverges (table 2 of the paper). Its
gates are cast to the rows' dtype before they weigh, as in the paper (section 2.4). Capacity is counted over the whole
batch as in the paper, or over each row, as transformers does; only the latter, or no capacity, makes a row's numbers
independent of its neighbours.

Shapes: B rows, T positions, D width, F inner width, E experts, K choices a token, N = B T, A kept choices,
P of them and the rows that fill their groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from sanbai.foundation.errors import ModelError
from sanbai.foundation.recipe import RecipeSection
from sanbai.model.expert_parallel import local_experts, read_elsewhere, sum_over
from sanbai.model.grouped_product import filled_groups, grouped_product
from sanbai.model.routing import assign, load_balancing_loss, router_entropy, router_z_loss


class ExpertsConfig(RecipeSection):
    """How tokens find experts. The defaults are Switch Transformer's."""

    num_experts: int = Field(default=8, ge=1, le=100_000)
    """Experts of a layer."""
    top_k: int = Field(default=1, ge=1, le=64)
    """Experts that read each token."""
    normalised_gates: bool = False
    """Whether the chosen experts' probabilities are scaled to add up to 1, as Mixtral's; with one choice the gate would
    be 1 and the router learn nothing from the task, so it is refused there."""
    dropless: bool = False
    """Whether experts read all that choose them; the capacity factors are then of no effect."""
    capacity_factor: float = Field(default=1.25, gt=0.0, le=1e6)
    """In training an expert reads at most this many times its even share; 1.0 to 1.25 in the paper."""
    evaluation_capacity_factor: float = Field(default=2.0, gt=0.0, le=1e6)
    """The same outside training."""
    capacity_over: Literal["batch", "row"] = "batch"
    """Whether the even share is of the batch's tokens or of each row's."""
    balance_coef: float = Field(default=0.01, ge=0.0, le=100.0)
    """Weight of the load-balancing loss in `RouterReport.loss`."""
    z_coef: float = Field(default=0.0, ge=0.0, le=100.0)
    """Weight of the squared log-partition in `RouterReport.loss`; ST-MoE uses 0.001."""
    jitter: float = Field(default=0.01, ge=0.0, lt=1.0)
    """In training the router reads its input times uniform(1 - jitter, 1 + jitter)."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of inner activations set to 0 in training; 0.4 when fine-tuning (section 2.4)."""
    initial_scale: float = Field(default=0.1, gt=0.0, le=10.0)
    """s of the fresh matrices' truncated normal, sigma = sqrt(s / fan-in); 1 is a dense layer's usual, and unstable."""
    router_precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is there to show what it does to stability."""

    @model_validator(mode="after")
    def _check_fit(self) -> Self:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k {self.top_k} is more than num_experts {self.num_experts}")
        if self.normalised_gates and self.top_k == 1:
            raise ValueError("normalised_gates with top_k 1 makes every gate 1; choose more experts or leave it off")
        return self


@dataclass(frozen=True)
class RouterReport:
    """What one layer's router did with one batch; only the losses carry gradients."""

    loss: Tensor
    """To be added to the objective: the losses below times their coefficients."""
    balance_loss: Tensor
    """1 where experts are used evenly, E where one is used alone."""
    z_loss: Tensor
    """Mean squared log-partition of the router's logits."""
    load_E: Tensor
    """Share of the choices that fell on each expert, before the capacity; adds up to 1."""
    dropped_share: Tensor
    """Share of the choices that found no place."""
    entropy: Tensor
    """Of the router's distribution, in nats, mean over tokens."""
    num_dead: Tensor
    """Experts that no token of the batch chose."""


class Experts(nn.Module):
    """E feed-forwards as stacked matrices, and the router before them."""

    def __init__(
        self,
        config: ExpertsConfig,
        *,
        width: int,
        inner_width: int,
        activation: Callable[[Tensor], Tensor],
        gated: bool,
        generator: torch.Generator | None = None,
    ) -> None:
        """Build and initialise; without a generator the parameters are left for a loader to fill.

        Args:
            config: how tokens find experts.
            width: D.
            inner_width: F.
            activation: between the projections, element by element.
            gated: down(activation(x gate) * x up) instead of down(activation(x up)).
            generator: of the fresh matrices.
        """
        super().__init__()
        self.config = config
        self.activation = activation
        E = config.num_experts
        self.router = nn.Parameter(torch.empty(E, width))
        self.gate = nn.Parameter(torch.empty(E, width, inner_width)) if gated else None
        self.up = nn.Parameter(torch.empty(E, width, inner_width))
        self.down = nn.Parameter(torch.empty(E, width, inner_width))  # as a linear layer's: to, from
        self.group: dist.ProcessGroup | None = None
        if generator is not None:
            self.initialise(generator)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw every matrix anew: normal with sigma = sqrt(initial_scale / fan-in), cut at two sigma (section 2.4)."""
        fan_in = {"down": self.down.shape[2]}
        for name, parameter in self.named_parameters():
            std = math.sqrt(self.config.initial_scale / fan_in.get(name, self.router.shape[1]))
            nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std, generator=generator)

    def divide(self, group: dist.ProcessGroup) -> None:
        """Keep this process's share of the experts; from now on tokens travel (see `expert_parallel.py`).

        Raises:
            ModelError: the group's size does not divide the number of experts.
        """
        if self.config.num_experts % group.size():
            raise ModelError(
                f"{group.size()} processes do not divide {self.config.num_experts} experts evenly; use another number"
            )
        here = local_experts(self.config.num_experts, group)
        for name in ("gate", "up", "down"):
            if (whole := getattr(self, name)) is not None:
                setattr(self, name, nn.Parameter(whole.detach()[here].clone()))
        self.group = group

    def forward(
        self,
        x_BTD: Tensor,
        *,
        mask_BT: Tensor | None = None,
        generator: torch.Generator | None = None,
        competing: bool = True,
    ) -> tuple[Tensor, RouterReport]:
        """Return out_BTD, of the input's dtype, and what the router did.

        Args:
            x_BTD: after the norm.
            mask_BT: true on real tokens; padding is not routed and its output is 0. By default all are real.
            generator: of jitter and dropout in training; torch's own by default.
            competing: whether capacities hold; tokens of texts that have nothing to do with each other do not compete.
        """
        config = self.config
        x_ND = x_BTD.flatten(0, 1)
        real_N = torch.ones_like(x_ND[:, 0], dtype=torch.bool) if mask_BT is None else mask_BT.flatten().bool()
        logits_NE = self._router_logits(x_ND, generator)
        probability_NE = logits_NE.softmax(dim=-1)
        gate_NK, expert_NK = probability_NE.topk(config.top_k, dim=-1)
        if config.normalised_gates:
            gate_NK = gate_NK / gate_NK.sum(dim=-1, keepdim=True)
        assignment = assign(
            expert_NK,
            real_N,
            num_experts=config.num_experts,
            num_groups=1 if config.capacity_over == "batch" else x_BTD.shape[0],
            capacity_factor=self._capacity_factor() if competing else math.inf,
        )
        x_AD = x_ND.index_select(0, assignment.token_A)
        wanted_E = assignment.wanted_E
        if self.group is None:
            out_AD = self._read(x_AD, assignment.kept_E, generator)
        else:
            out_AD = read_elsewhere(x_AD, assignment.kept_E, self.group, partial(self._read, generator=generator))
            wanted_E = sum_over(self.group, wanted_E)  # the mean of the processes' losses is then that of one process
        gate_A = gate_NK.flatten().index_select(0, assignment.choice_A)
        weighted_AD = out_AD * gate_A.to(out_AD.dtype).unsqueeze(-1)
        out_ND = torch.zeros_like(x_ND, dtype=weighted_AD.dtype).index_add(0, assignment.token_A, weighted_AD)

        balance_loss = load_balancing_loss(probability_NE, wanted_E, real_N)
        z_loss = router_z_loss(logits_NE, real_N)
        num_choices = assignment.wanted_E.sum().clamp(min=1)
        report = RouterReport(
            loss=config.balance_coef * balance_loss + config.z_coef * z_loss,
            balance_loss=balance_loss,
            z_loss=z_loss,
            load_E=assignment.wanted_E / num_choices,
            dropped_share=(assignment.wanted_E - assignment.kept_E).sum() / num_choices,
            entropy=router_entropy(probability_NE.detach(), real_N),
            num_dead=(assignment.wanted_E == 0).sum(),
        )
        return out_ND.to(x_BTD.dtype).view_as(x_BTD), report

    def _capacity_factor(self) -> float:
        if self.config.dropless:
            return math.inf
        return self.config.capacity_factor if self.training else self.config.evaluation_capacity_factor

    def _router_logits(self, x_ND: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return logits_NE in the router's precision, which autocast does not lower."""
        exact = torch.promote_types(x_ND.dtype, torch.float32)
        if self.config.router_precision == "bfloat16":
            exact = torch.bfloat16
        with torch.autocast(x_ND.device.type, enabled=False):
            x_ND = x_ND.to(exact)
            if self.training and self.config.jitter:
                noise_ND = torch.empty_like(x_ND, requires_grad=False)
                noise_ND.uniform_(1 - self.config.jitter, 1 + self.config.jitter, generator=generator)
                x_ND = x_ND * noise_ND
            return F.linear(x_ND, self.router.to(exact))

    def _read(self, x_AD: Tensor, kept_E: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return what each expert makes of its tokens, sorted by expert; not yet weighted."""
        groups = filled_groups(x_AD, kept_E)
        x_PD = x_AD if groups.row_P is None else x_AD.index_select(0, groups.row_P)
        up_PF = grouped_product(x_PD, self.up, groups.count_E)
        if self.gate is None:
            inner_PF = self.activation(up_PF)
        else:
            inner_PF = self.activation(grouped_product(x_PD, self.gate, groups.count_E)) * up_PF
        if self.training and self.config.dropout:
            kept = 1 - self.config.dropout
            inner_PF = inner_PF * torch.empty_like(inner_PF).bernoulli_(kept, generator=generator).div_(kept)
        out_PD = grouped_product(inner_PF, self.down.transpose(1, 2), groups.count_E)
        return out_PD if groups.place_N is None else out_PD.index_select(0, groups.place_N)


def set_expert_dropout(model: nn.Module, dropout: float) -> None:
    """Let all experts of a model drop this share of their inner activations in training; its shape stays as it is."""
    for module in model.modules():
        if isinstance(module, Experts):
            module.config = module.config.model_copy(update={"dropout": dropout})
