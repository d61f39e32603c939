"""Learned positions before each text: virtual tokens, or the keys and values that such tokens would have.

Positions that come first in a causal model see only each other, so what they offer to the text is the same for every
row: keys and values by layer, computed once a pass. Prompt tuning and prefix tuning so differ only in what is learned.

Shapes: L layers, G key-value heads, P virtual positions, E embedding width, K head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sanbai.model.config import ModelConfig

KeysAndValues = Sequence[tuple[Tensor, Tensor]]
"""k_1GPK and v_1GPK of each layer."""


class VirtualTokens(nn.Module):
    """Vectors in the place of tokens' embeddings: prompt tuning."""

    def __init__(self, num_positions: int, config: ModelConfig, *, like: Tensor) -> None:
        super().__init__()
        self.vectors_PE = nn.Parameter(like.new_zeros(num_positions, config.embedding_size))

    @property
    def num_positions(self) -> int:
        """P."""
        return len(self.vectors_PE)

    def stored(self) -> Tensor:
        """Return vectors_PE as they are read."""
        return self.vectors_PE

    def forward(self, read: Callable[[Tensor], KeysAndValues]) -> KeysAndValues:
        """Return what each layer offers, given how a trunk reads vectors_1PE."""
        return read(self.stored().unsqueeze(0))


class EncodedTokens(VirtualTokens):
    """Vectors that a network of three layers writes from others: P-tuning."""

    def __init__(self, num_positions: int, config: ModelConfig, inner_width: int, *, like: Tensor) -> None:
        super().__init__(num_positions, config, like=like)
        size = config.embedding_size
        self.encoder = nn.Sequential(
            nn.Linear(size, inner_width),
            nn.ReLU(),
            nn.Linear(inner_width, inner_width),
            nn.ReLU(),
            nn.Linear(inner_width, size),
        ).to(like)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the network anew, uniform in ± 1 / sqrt(inputs), torch's own rule."""
        for layer in self.encoder:
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                for parameter in (layer.weight, layer.bias):
                    parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))

    def stored(self) -> Tensor:
        """Return the vectors that the network writes."""
        vectors_PE: Tensor = self.encoder(self.vectors_PE)
        return vectors_PE


class Prefix(nn.Module):
    """Keys and values themselves, turned by no rotation: prefix tuning."""

    def __init__(self, num_positions: int, config: ModelConfig, *, like: Tensor) -> None:
        super().__init__()
        self.shape = (num_positions, config.num_layers, 2, config.num_kv_heads, config.head_width)
        self.values_PN = nn.Parameter(
            like.new_zeros(num_positions, like.new_empty(self.shape[1:], device="meta").numel())
        )

    @property
    def num_positions(self) -> int:
        """P."""
        return len(self.values_PN)

    @torch.no_grad()
    def start_from(self, read: KeysAndValues) -> None:
        """Take over what a trunk offers of some text of P tokens."""
        layers_LPN = [torch.stack((k[0], v[0])).permute(2, 0, 1, 3).flatten(1) for k, v in read]
        self.values_PN.copy_(torch.cat(layers_LPN, dim=1))

    def stored(self) -> Tensor:
        """Return values_PN, in each row layer by layer the keys of all heads, then the values."""
        return self.values_PN

    def forward(self, read: Callable[[Tensor], KeysAndValues]) -> KeysAndValues:  # noqa: ARG002 - as VirtualTokens
        """Return what each layer offers; nothing needs reading."""
        kv_L2GPK = self.values_PN.view(self.shape).permute(1, 2, 3, 0, 4)
        return [(kv[0].unsqueeze(0), kv[1].unsqueeze(0)) for kv in kv_L2GPK]
