"""The norm that a configuration asks for.

All are torch's own. A root-mean-square norm with its gradient written out was tried and made no step faster
(docs/experiments.md).
"""

from __future__ import annotations

from torch import nn

from sanbai.model.config import ModelConfig


def make_norm(config: ModelConfig, width: int | None = None) -> nn.Module:
    """Return a norm over the last axis; sums are in float32 at least, the result has the input's dtype.

    `rms`: weight * x / sqrt(mean(x^2) + epsilon) (Zhang and Sennrich 2019, arXiv:1910.07467); `layer`: Ba et al. 2016,
    arXiv:1607.06450.

    Args:
        config: which norm.
        width: of the last axis; by default the model's.
    """
    width = config.width if width is None else width
    if config.norm == "rms":
        return nn.RMSNorm(width, eps=config.norm_epsilon)
    if config.norm == "layer":
        return nn.LayerNorm(width, eps=config.norm_epsilon)
    return nn.Identity()
