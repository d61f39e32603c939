"""The oracle of every log-likelihood here: one forward pass a token, sums in plain Python floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sanbai.model.heads import LanguageModel


def slow_distribution(model: LanguageModel, past: Sequence[int]) -> list[float]:
    """Return log p(next token = v | past) for every v."""
    with torch.no_grad():
        logits = model(torch.tensor([list(past)]))[0, -1].tolist()
    top = max(logits)
    total = top + math.log(math.fsum(math.exp(x - top) for x in logits))
    return [x - total for x in logits]


def slow_logprobs(model: LanguageModel, row: Sequence[int]) -> list[float]:
    """Return log p(token | all before) for every token but the first."""
    return [slow_distribution(model, row[:t])[row[t]] for t in range(1, len(row))]
