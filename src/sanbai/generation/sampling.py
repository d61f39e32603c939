"""From logits to a token: temperature, top-k, top-p, and one uniform number a row that decides.

Sampling inverts the cumulative distribution at a given uniform number. The randomness is thus an argument, drawn row by
row from that row's own generator, and what else is in the batch cannot change a row's draw.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sanbai.foundation.recipe import RecipeSection

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


class SampledTokens(NamedTuple):
    """One drawn token a row, with its log-probabilities in nats."""

    token_B: Tensor
    logprob_B: Tensor
    """Under softmax(logits / temperature), before top-k and top-p: what training computes. At temperature 0, of 1."""
    sampled_logprob_B: Tensor
    """Under the distribution that was drawn from; 0 at temperature 0, where nothing is left to chance."""


def sample_tokens(logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling) -> SampledTokens:
    """Draw one token a row.

    Args:
        logits_BV: of any floating dtype; reduced in float32 (float64 stays).
        uniform_B: in [0, 1), at most 24 bits each, so that in float64 u * total stays below the total. Unused at
            temperature 0.
        sampling: the rule.
    """
    logits_BV = logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32))
    if sampling.heat == 0:
        best_B1 = logits_BV.argmax(dim=-1, keepdim=True)
        logprob_B = (logits_BV.gather(-1, best_B1) - logits_BV.logsumexp(-1, keepdim=True)).squeeze(-1)
        return SampledTokens(best_B1.squeeze(-1), logprob_B, torch.zeros_like(logprob_B))
    logprob_BV = torch.log_softmax(logits_BV / sampling.temperature, dim=-1)
    weight_BV = truncate(logprob_BV.exp(), top_k=sampling.top_k, top_p=sampling.top_p)
    cumulative_BV = weight_BV.double().cumsum(dim=-1)
    total_B1 = cumulative_BV[:, -1:]
    # The first token whose cumulative weight exceeds u * total; one of weight 0 never is.
    token_B1 = torch.searchsorted(cumulative_BV, uniform_B.double().unsqueeze(-1) * total_B1, right=True)
    logprob_B = logprob_BV.gather(-1, token_B1).squeeze(-1)
    return SampledTokens(token_B1.squeeze(-1), logprob_B, logprob_B - total_B1.squeeze(-1).log().to(logprob_B.dtype))


def truncate(probability_BV: Tensor, *, top_k: int, top_p: float) -> Tensor:
    """Set to 0 what top-k and then top-p exclude; the rest is left as it is, not renormalised.

    Top-p keeps the smallest number of likeliest tokens whose probabilities, renormalised after top-k, reach `top_p`
    (Holtzman et al. 2020, arXiv:1904.09751). Tokens as likely as the last one kept are kept too, so that the order of
    equals, which no sort promises, never matters.
    """
    limited = top_k < probability_BV.shape[-1]
    if not limited and top_p == 1.0:
        return probability_BV
    sorted_BV = descending(probability_BV)[:, :top_k]
    last_B1 = sorted_BV[:, -1:]
    if top_p < 1.0:
        cumulative_BV = sorted_BV.double().cumsum(dim=-1)
        reached_BV = cumulative_BV >= top_p * cumulative_BV[:, -1:]
        last_B1 = sorted_BV.gather(-1, reached_BV.to(torch.uint8).argmax(dim=-1, keepdim=True))
    return probability_BV.where(probability_BV >= last_B1, 0.0)


def descending(x_BV: Tensor) -> Tensor:
    """Return each row sorted, largest first; on a CPU by numpy, whose vector sort is four times torch's speed."""
    if x_BV.device.type == "cpu":
        return torch.from_numpy(-np.sort(-x_BV.numpy(), axis=-1))
    return x_BV.sort(dim=-1, descending=True).values
