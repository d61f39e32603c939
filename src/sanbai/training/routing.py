"""What the routers of a model with experts did in one step, as numbers for the log.

Shapes: E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sanbai.model.experts import RouterReport


@dataclass(frozen=True, slots=True)
class _Layer:
    """One router's numbers over some tokens; shares, and means over tokens."""

    balance_loss: Tensor
    load_E: Tensor
    dropped_share: Tensor
    entropy: Tensor


@dataclass(slots=True)
class Routing:
    """Collects the reports of a step's parts, which may come from several threads and in any order."""

    _parts: dict[int, tuple[int, list[_Layer]]] = field(default_factory=dict)

    def add(self, part: int, num_tokens: int, reports: Sequence[RouterReport]) -> None:
        """Note what the routers did with one part.

        Args:
            part: its number.
            num_tokens: that it has, padding left out.
            reports: one a sparse layer.
        """
        layers = [_Layer(each.balance_loss.detach(), each.load_E, each.dropped_share, each.entropy) for each in reports]
        self._parts[part] = (num_tokens, layers)

    def metrics(self) -> dict[str, float]:
        """Return the step's numbers, nothing where no layer has experts. All but the last are means over the layers.

        `balance_loss`: before its coefficient, 1 if experts are used evenly; `router_load`: what the busiest expert is
        chosen for, as a multiple of its even share; `dropped_share` of the choices that found no place;
        `router_entropy` in nats; `dead_experts`: how many of all layers no token of the step chose.
        """
        parts = [self._parts[index] for index in sorted(self._parts)]
        if not parts or not parts[0][1]:
            return {}
        total = sum(num_tokens for num_tokens, _ in parts)

        def mean(name: str) -> Tensor:
            """Over tokens, one row a layer."""
            shares = [
                torch.stack([getattr(each, name).float() for each in layers]) * (num_tokens / total)
                for num_tokens, layers in parts
            ]
            return torch.stack(shares).sum(dim=0)

        load_LE = mean("load_E")
        return {
            "balance_loss": mean("balance_loss").mean().item(),
            "router_load": (load_LE.amax(dim=1) * load_LE.shape[1]).mean().item(),
            "dropped_share": mean("dropped_share").mean().item(),
            "router_entropy": mean("entropy").mean().item(),
            "dead_experts": float((load_LE == 0).sum()),
        }
