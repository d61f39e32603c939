"""Heads of models that read a text and say something about it: BERT's, and a classifier and spans for any trunk.

A model is fine-tuned by `from_model`: a copy of what another has learnt, with a new head.

Shapes: B rows, T positions, D width, E embedding width, V vocabulary, C classes.
"""

from __future__ import annotations

import copy
from typing import TypeVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanbai.model.block import ACTIVATIONS
from sanbai.model.config import ModelConfig
from sanbai.model.norm import make_norm
from sanbai.model.transformer import EMBEDDING_STD, Inputs, Transformer

M = TypeVar("M", bound=nn.Module)


class MaskedHead(nn.Module):
    """Logits of the token at a position: dense, activation, norm, then the token embedding and a bias."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.embedding_size)
        self.activation = ACTIVATIONS[config.feed_forward]
        self.norm = make_norm(config, config.embedding_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor, embedding_VE: Tensor) -> Tensor:
        """Return logits [..., V] of hidden vectors [..., D]."""
        return F.linear(self.norm(self.activation(self.dense(hidden))), embedding_VE, self.bias)


class Pooler(nn.Module):
    """One vector for a text: its first position through dense and tanh."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)

    def forward(self, hidden_BTD: Tensor, segments_BT: Tensor | None) -> Tensor:
        """Return pooled_BD; the first position that is not padding (segment 0)."""
        pooled_BD: Tensor = self.dense(_pick(hidden_BTD, segments_BT, first=True)).tanh()
        return pooled_BD


class MaskedModel(nn.Module):
    """Logits of each token from both sides: BERT's masked language model."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialise; without a generator the parameters are left for a loader to fill."""
        super().__init__()
        self.trunk = Transformer(config, generator)
        self.head = _fresh(MaskedHead(config), generator)

    @property
    def config(self) -> ModelConfig:
        """The trunk's shape."""
        return self.trunk.config

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [..., V] of hidden vectors [..., D]; lets a caller compute them for masked positions only."""
        logits: Tensor = self.head(hidden, self.trunk.token_embedding.weight)
        return logits

    def forward(self, tokens_BT: Tensor, **inputs: Unpack[Inputs]) -> Tensor:
        """Return logits_BTV; arguments as `Transformer.forward`."""
        return self.logits(self.trunk(tokens_BT, **inputs))


class MaskedPairModel(nn.Module):
    """BERT as it is pretrained: a masked model, and whether the second sentence follows (ALBERT: stands in order)."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialise; without a generator the parameters are left for a loader to fill."""
        super().__init__()
        self.trunk = Transformer(config, generator)
        self.head = _fresh(MaskedHead(config), generator)
        self.pooler = _fresh(Pooler(config), generator)
        self.sentence = _fresh(nn.Linear(config.width, 2), generator)

    @property
    def config(self) -> ModelConfig:
        """The trunk's shape."""
        return self.trunk.config

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [..., V] of hidden vectors [..., D]; lets a caller compute them for masked positions only."""
        logits: Tensor = self.head(hidden, self.trunk.token_embedding.weight)
        return logits

    def pair_logits(self, hidden_BTD: Tensor, segments_BT: Tensor | None) -> Tensor:
        """Return logits_B2 of sentences, 0 that the second follows and 1 that it does not."""
        logits_B2: Tensor = self.sentence(self.pooler(hidden_BTD, segments_BT))
        return logits_B2

    def forward(self, tokens_BT: Tensor, **inputs: Unpack[Inputs]) -> Tensor:
        """Return logits_BTV of the masked model; arguments as `Transformer.forward`."""
        return self.both(tokens_BT, **inputs)[0]

    def both(self, tokens_BT: Tensor, **inputs: Unpack[Inputs]) -> tuple[Tensor, Tensor]:
        """Return logits_BTV of tokens and logits_B2 of sentences, 0 that the second follows and 1 that it does not."""
        hidden_BTD = self.trunk(tokens_BT, **inputs)
        return self.logits(hidden_BTD), self.pair_logits(hidden_BTD, inputs.get("segments_BT"))


class NextSentenceModel(nn.Module):
    """Whether a text's second sentence follows the first."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialise; without a generator the parameters are left for a loader to fill."""
        super().__init__()
        self.trunk = Transformer(config, generator)
        self.pooler = _fresh(Pooler(config), generator)
        self.head = _fresh(nn.Linear(config.width, 2), generator)

    @property
    def config(self) -> ModelConfig:
        """The trunk's shape."""
        return self.trunk.config

    def forward(self, tokens_BT: Tensor, **inputs: Unpack[Inputs]) -> Tensor:
        """Return logits_B2, 0 that it follows and 1 that it does not; arguments as `Transformer.forward`."""
        pooled_BD = self.pooler(self.trunk(tokens_BT, **inputs), inputs.get("segments_BT"))
        logits_B2: Tensor = self.head(pooled_BD)
        return logits_B2


class Classifier(nn.Module):
    """The class of a text: from the pooled first position where the trunk looks ahead, else from the last."""

    def __init__(self, config: ModelConfig, num_classes: int, generator: torch.Generator | None = None) -> None:
        """Build and initialise; without a generator the parameters are left for a loader to fill."""
        super().__init__()
        self.trunk = Transformer(config, generator)
        self.pooler = _fresh(Pooler(config), generator) if config.bidirectional else None
        self.head = _fresh(nn.Linear(config.width, num_classes, bias=config.bidirectional), generator)

    @property
    def config(self) -> ModelConfig:
        """The trunk's shape."""
        return self.trunk.config

    @classmethod
    def from_model(cls, model: nn.Module, num_classes: int, generator: torch.Generator) -> Classifier:
        """Return a classifier on a copy of another model's trunk, and of its pooler if it has one; the head is new."""
        trunk = _trunk_of(model)
        classifier = cls(trunk.config, num_classes, generator).to(trunk.token_embedding.weight)
        classifier.trunk = copy.deepcopy(trunk)
        if isinstance(model, MaskedPairModel | NextSentenceModel | Classifier) and classifier.pooler is not None:
            classifier.pooler = copy.deepcopy(model.pooler)
        return classifier

    def forward(self, tokens_BT: Tensor, **inputs: Unpack[Inputs]) -> Tensor:
        """Return logits_BC; arguments as `Transformer.forward`, a row of one text."""
        return self.logits(self.trunk(tokens_BT, **inputs), inputs.get("segments_BT"))

    def logits(self, hidden_BTD: Tensor, segments_BT: Tensor | None) -> Tensor:
        """Return logits_BC of the trunk's hidden vectors; lets a caller use them for another head too."""
        text_BD = _pick(hidden_BTD, segments_BT, first=False)
        if self.pooler is not None:
            text_BD = self.pooler(hidden_BTD, segments_BT)
        logits_BC: Tensor = self.head(text_BD)
        return logits_BC


class SpanModel(nn.Module):
    """Where an answer starts and ends in a text."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialise; without a generator the parameters are left for a loader to fill."""
        super().__init__()
        self.trunk = Transformer(config, generator)
        self.head = _fresh(nn.Linear(config.width, 2), generator)

    @property
    def config(self) -> ModelConfig:
        """The trunk's shape."""
        return self.trunk.config

    @classmethod
    def from_model(cls, model: nn.Module, generator: torch.Generator) -> SpanModel:
        """Return a span model on a copy of another model's trunk; the head is new."""
        trunk = _trunk_of(model)
        spans = cls(trunk.config, generator).to(trunk.token_embedding.weight)
        spans.trunk = copy.deepcopy(trunk)
        return spans

    def forward(self, tokens_BT: Tensor, **inputs: Unpack[Inputs]) -> Tensor:
        """Return logits_BT2, of each position as the start and as the end; arguments as `Transformer.forward`."""
        logits_BT2: Tensor = self.head(self.trunk(tokens_BT, **inputs))
        return logits_BT2


def _trunk_of(model: nn.Module) -> Transformer:
    trunk = model if isinstance(model, Transformer) else model.trunk
    assert isinstance(trunk, Transformer)
    return trunk


def _pick(hidden_BTD: Tensor, segments_BT: Tensor | None, *, first: bool) -> Tensor:
    """Return hidden_BD of each row's first or last position that is not padding."""
    if segments_BT is None:
        return hidden_BTD[:, 0 if first else -1]
    real_BT = (segments_BT != 0).int()
    place_B = real_BT.argmax(dim=1) if first else real_BT.shape[1] - 1 - real_BT.flip(1).argmax(dim=1)
    return hidden_BTD[torch.arange(len(hidden_BTD), device=hidden_BTD.device), place_B]


def _fresh(module: M, generator: torch.Generator | None) -> M:
    """Initialise a head as the trunk's embeddings; norms stay 1."""
    if generator is not None:
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                nn.init.normal_(parameter, std=EMBEDDING_STD, generator=generator)
    return module
