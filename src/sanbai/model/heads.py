"""What stands on a trunk that looks back: a distribution over the next token, or one number a position.

Shapes: B rows, T positions, D width, V vocabulary.
"""

from __future__ import annotations

import copy
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanbai.foundation.device import rows_to_fill
from sanbai.foundation.errors import ModelError
from sanbai.model.config import ModelConfig
from sanbai.model.transformer import EMBEDDING_STD, Inputs, Transformer


class LanguageModel(nn.Module):
    """Logits of the next token at every position."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialise; without a generator the parameters are left for a loader to fill."""
        super().__init__()
        if config.tied_embeddings and config.embedding_size != config.width:
            raise ModelError(
                f"an embedding of {config.embedding_size} numbers cannot be the head of a trunk of {config.width}; "
                "untie them"
            )
        self.trunk = Transformer(config, generator)
        self.head = None
        if not config.tied_embeddings:
            self.head = nn.Linear(config.width, config.vocab_size, bias=False)
            if generator is not None:
                nn.init.normal_(self.head.weight, std=EMBEDDING_STD, generator=generator)

    @property
    def config(self) -> ModelConfig:
        """The trunk's shape."""
        return self.trunk.config

    @property
    def head_weight(self) -> Tensor:
        """The matrix [V, D] from hidden vectors to logits; the token embedding itself where they are tied."""
        weight = self.trunk.token_embedding.weight if self.head is None else self.head.weight
        return weight * self.config.width**-0.5 if self.config.scaled_head else weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [..., V] of hidden vectors [..., D]; lets a caller compute them for chosen positions only."""
        if hidden.dim() == 2 and (more := rows_to_fill(hidden)):
            return F.linear(F.pad(hidden, (0, 0, 0, more)), self.head_weight)[: len(hidden)]
        return F.linear(hidden, self.head_weight)

    def forward(self, tokens_BT: Tensor, **inputs: Unpack[Inputs]) -> Tensor:
        """Return logits_BTV; arguments as `Transformer.forward`."""
        return self.logits(self.trunk(tokens_BT, **inputs))


class ScalarModel(nn.Module):
    """One number a position: a reward model (read at the last token) or a value model (read everywhere)."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialise; the head's standard deviation is 1 / sqrt(D + 1) (Stiennon et al. 2020), its bias 0."""
        super().__init__()
        self.trunk = Transformer(config, generator)
        self.head = nn.Linear(config.width, 1) if generator is None else new_scalar_head(config.width, generator)

    @property
    def config(self) -> ModelConfig:
        """The trunk's shape."""
        return self.trunk.config

    @classmethod
    def from_language_model(cls, model: LanguageModel, generator: torch.Generator) -> ScalarModel:
        """Return a scalar model on a copy of a language model's trunk, its head new."""
        return cls.on_trunk(copy.deepcopy(model.trunk), new_scalar_head(model.config.width, generator))

    @classmethod
    def on_trunk(cls, trunk: Transformer, head: nn.Linear) -> ScalarModel:
        """Return a scalar model on a trunk, which is taken over, not copied; the head gets its precision and place."""
        with torch.device("meta"):
            scalar = cls(trunk.config)
        scalar.trunk = trunk
        scalar.head = head.to(trunk.token_embedding.weight)
        return scalar

    def forward(self, tokens_BT: Tensor, **inputs: Unpack[Inputs]) -> Tensor:
        """Return values_BT; arguments as `Transformer.forward`.

        In float32 at least, also under autocast: rewards differ by less than bfloat16 resolves.
        """
        hidden_BTD = self.trunk(tokens_BT, **inputs)
        exact = torch.promote_types(hidden_BTD.dtype, torch.float32)
        values_BT: Tensor = (hidden_BTD.to(exact) * self.head.weight.to(exact)).sum(dim=-1) + self.head.bias.to(exact)
        return values_BT


def new_scalar_head(width: int, generator: torch.Generator) -> nn.Linear:
    """Return a head whose standard deviation is 1 / sqrt(D + 1) (Stiennon et al. 2020) and whose bias is 0."""
    head = nn.Linear(width, 1)
    nn.init.normal_(head.weight, std=(width + 1) ** -0.5, generator=generator)
    nn.init.zeros_(head.bias)
    return head
