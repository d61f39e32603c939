"""How an answer is drawn: temperature, top-k, top-p, and one uniform number a token that decides.

The randomness is an argument of each draw, taken row by row from that row's own generator, so that what else is in the
batch cannot change a row's draw. The draw itself is in `drawing.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import torch_generator

COLDEST = 1e-6
"""A lower temperature is 0: logits divided by it could overflow float32, and would leave nothing to chance."""


class Sampling(RecipeSection):
    """How answers are drawn."""

    temperature: float = Field(default=1.0, ge=0.0, le=100.0)
    """Logits are divided by it; 0 always takes the likeliest token."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Draw only from the likeliest tokens that together hold this probability; 1 allows all."""
    top_k: int = Field(default=1_000_000, ge=1, le=1_000_000)
    """Draw only from this many likeliest tokens; a number of the vocabulary's size or more allows all."""
    max_new_tokens: int = Field(default=128, ge=1, le=1_000_000)
    """An answer ends here if no stop token has ended it before, or where the model's context ends."""

    @property
    def heat(self) -> float:
        """The temperature, or 0 where it is too low to divide by."""
        return self.temperature if self.temperature >= COLDEST else 0.0


def draw_uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Return `count` numbers in [0, 1) for each seed, of 24 bits, each row from its own generator."""
    return torch.stack([torch.rand(count, generator=torch_generator(seed, "sample")) for seed in seeds])
