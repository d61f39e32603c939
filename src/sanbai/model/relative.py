"""T5's relative positions (Raffel et al. 2019, arXiv:1910.10683): each head adds a learned number for each distance.

Distances fall into classes: half of them hold one distance each, the others grow by powers up to a last one. One table
serves every layer of a stack.

Shapes: T positions, H heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sanbai.model.config import ModelConfig


class RelativeBias(nn.Module):
    """What each head adds to its scores."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.relative_buckets, config.num_heads)
        self.bidirectional, self.distance = config.bidirectional, config.relative_distance

    def forward(self, num_positions: int) -> Tensor:
        """Return bias_1HTT. A segment is one run of positions, so distances in the row are distances in the text."""
        place_T = torch.arange(num_positions, device=self.table.weight.device)
        ahead_TT = place_T - place_T.unsqueeze(-1)
        return self.of(ahead_TT).permute(2, 0, 1).unsqueeze(0)

    def of(self, ahead: Tensor) -> Tensor:
        """Return the bias of each distance (key's position less query's), the heads as its last axis."""
        bucket = distance_bucket(
            ahead,
            num_buckets=self.table.num_embeddings,
            max_distance=self.distance,
            bidirectional=self.bidirectional,
        )
        bias: Tensor = self.table(bucket)
        return bias


def distance_bucket(ahead: Tensor, *, num_buckets: int, max_distance: int, bidirectional: bool) -> Tensor:
    """Return the class of each distance, of the same shape.

    Args:
        ahead: key's position less query's.
        num_buckets: classes in all; keys ahead take half of them where both directions are told apart.
        max_distance: from here on all are one class.
        bidirectional: whether keys ahead are told apart, or are all distance 0.
    """
    first = torch.zeros_like(ahead)
    if bidirectional:
        num_buckets //= 2
        first = (ahead > 0).long() * num_buckets
        distance = ahead.abs()
    else:
        distance = (-ahead).clamp(min=0)
    num_exact = num_buckets // 2
    octaves = (distance.clamp(min=1).float() / num_exact).log() / math.log(max_distance / num_exact)
    far = (num_exact + (octaves * (num_buckets - num_exact)).long()).clamp(max=num_buckets - 1)
    return first + torch.where(distance < num_exact, distance, far)
