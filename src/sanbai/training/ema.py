"""An exponential moving average of a model's weights: steadier than the last step's, and what InstructGPT kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanbai.training.checkpoint import Weights


class AverageWeights:
    """average ← decay · average + (1 - decay) · weights, after every optimizer step; starts at the first weights.

    InstructGPT's decay of 0.992 remembers about 125 steps; the paper does not say whether its step is an optimizer's
    or an iteration's: here it is an optimizer's.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Copy what learns of `model`, whose later changes `update` follows."""
        self._decay = decay
        self._weights = {name: weight.clone() for name, weight in Weights(model).tensors().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights as they are now."""
        averages = list(self._weights.values())
        torch._foreach_lerp_(averages, list(Weights(model).tensors().values()), 1 - self._decay)

    def tensors(self) -> dict[str, Tensor]:
        """Return the averages by parameter name, not copied."""
        return self._weights

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over averages that `tensors` gave."""
        for name, average in self._weights.items():
            average.copy_(tensors[name])
