"""An encoder that reads one text and a language model that writes another, looking at what was read: T5 and Switch.

Shapes: B rows, M positions read, T positions written, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanbai.model.block import Block
from sanbai.model.config import ModelConfig
from sanbai.model.experts import RouterReport
from sanbai.model.heads import LanguageModel
from sanbai.model.transformer import Transformer


class EncoderDecoder(nn.Module):
    """Both halves share the token embedding."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialise; without a generator the parameters are left for a loader to fill."""
        super().__init__()
        self.decoder = LanguageModel(config, generator)
        self.encoder = Transformer(config.encoder(), generator)
        self.tie()

    @property
    def config(self) -> ModelConfig:
        """The shape of both halves."""
        return self.decoder.config

    def tie(self) -> None:
        """Let the encoder read with the decoder's embedding; needed again after parameters were replaced."""
        self.encoder.token_embedding = self.decoder.trunk.token_embedding

    def encode(
        self,
        tokens_BM: Tensor,
        segments_BM: Tensor | None = None,
        *,
        reports: list[RouterReport] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return memory_BMD of what is read; segment 0 is padding."""
        memory_BMD: Tensor = self.encoder(tokens_BM, segments_BT=segments_BM, reports=reports, generator=generator)
        return memory_BMD

    def project(self, memory_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Return what every layer looks at in an encoder's result, k_LBGMK and v_LBGMK."""
        crosses = [block.cross for block in self.decoder.trunk.blocks if isinstance(block, Block) and block.cross]
        layers = [crosses[layer % len(crosses)].project(memory_BMD) for layer in range(self.config.num_layers)]
        k_LBGMK, v_LBGMK = (torch.stack(kept) for kept in zip(*layers, strict=True))
        return k_LBGMK, v_LBGMK

    def forward(
        self,
        tokens_BM: Tensor,
        decoder_tokens_BT: Tensor,
        *,
        segments_BM: Tensor | None = None,
        decoder_segments_BT: Tensor | None = None,
        reports: list[RouterReport] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return logits_BTV of the token after each one written.

        Args:
            tokens_BM: what is read.
            decoder_tokens_BT: what is written, shifted right: the first is T5's padding id.
            segments_BM: by default one text a row; 0 is padding.
            decoder_segments_BT: a segment sees the segment of its number in what is read.
            reports: gets what each sparse layer's router did appended, the encoder's first.
            generator: of the experts' jitter and dropout in training; by default torch's own.
        """
        logits_BTV: Tensor = self.decoder(
            decoder_tokens_BT,
            segments_BT=decoder_segments_BT,
            memory_BMD=self.encode(tokens_BM, segments_BM, reports=reports, generator=generator),
            memory_segments_BM=segments_BM,
            reports=reports,
            generator=generator,
        )
        return logits_BTV
