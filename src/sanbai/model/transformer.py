"""The one Transformer: embeddings, blocks, a last norm.

GPT, Llama, BERT, T5 and Switch are rows of `ModelConfig`; nothing here or in `block.py` asks for a model's name. Masks
come from segments (`mask.py`); the residual stream keeps the parameters' dtype under autocast, only matrix products are
cast.

Initialisation is GPT-2's: normal with standard deviation 0.02, divided by sqrt(2 layers) in the projections that write
into the residual stream, norms 1, biases 0; experts have a rule of their own.

Shapes: B rows, T positions, M positions of an encoder's result, D width, E embedding width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn

from sanbai.foundation.errors import ModelError
from sanbai.model.adapters.prompts import KeysAndValues, Prefix, VirtualTokens
from sanbai.model.block import Block, Pass, product_dtype
from sanbai.model.config import ModelConfig
from sanbai.model.experts import Experts, RouterReport
from sanbai.model.mask import additive_mask, memory_mask, positions_in_segments, prefix_mask
from sanbai.model.norm import make_norm
from sanbai.model.paged import Pages
from sanbai.model.relative import RelativeBias
from sanbai.model.rotary import rotation
from sanbai.model.sinusoid import sinusoids

#: Of fresh embeddings and heads (Radford et al. 2019).
EMBEDDING_STD = 0.02


class Inputs(TypedDict, total=False):
    """What may go into a Transformer beside the tokens; each may be left out."""

    positions_BT: Tensor | None
    """By default counted from the start of each segment."""
    segments_BT: Tensor | None
    """Attention stays within a segment; 0 is padding; by default all one segment. See `mask.py`."""
    types_BT: Tensor | None
    """Which part of the input a token belongs to (BERT's token types); by default 0."""
    tasks_BT: Tensor | None
    """Which task (ERNIE); by default 0."""
    prefix_BT: Tensor | None
    """True on tokens that layers with the mask `prefix` see from everywhere; by default none."""
    branches_BT: Tensor | None
    """Branches of segments that are trees (see `mask.py`); the positions must then be given too. By default none."""
    memory_BMD: Tensor | None
    """An encoder's result, for the blocks to look at."""
    memory_segments_BM: Tensor | None
    """Its segments; by default all one."""
    pages: Pages | None
    """Of a step over many texts, each row one token of one of them; its position must then be given too."""
    reports: list[RouterReport] | None
    """Gets what each sparse layer's router did appended, its losses among it."""
    generator: torch.Generator | None
    """Of the experts' jitter and dropout in training; by default torch's own."""


class Transformer(nn.Module):
    """Token ids in, one vector a position out; the trunk that every head stands on."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialise; without a generator the parameters are left for a loader to fill."""
        super().__init__()
        self.config = config
        size = config.embedding_size
        self.token_embedding = nn.Embedding(config.vocab_size, size)
        self.position_embedding = self.type_embedding = self.task_embedding = None
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.max_positions, size)
        if config.num_token_types:
            self.type_embedding = nn.Embedding(config.num_token_types, size)
        if config.num_task_types:
            self.task_embedding = nn.Embedding(config.num_task_types, size)
        self.embedding_norm = make_norm(config, size) if config.embedding_norm else nn.Identity()
        self.embedding_projection = nn.Identity() if size == config.width else nn.Linear(size, config.width)
        self.relative_bias = RelativeBias(config) if config.positions == "relative" else None
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.num_distinct)])
        self.norm = make_norm(config) if config.norm_place == "before" else nn.Identity()
        self.prompt: VirtualTokens | Prefix | None = None
        """Learned positions before each text; put here by `adapters`."""
        if generator is not None:
            self._initialise(generator)

    def forward(self, tokens_BT: Tensor, **inputs: Unpack[Inputs]) -> Tensor:
        """Return hidden_BTD after the last norm.

        Args:
            tokens_BT: ids; what stands on padding is never looked at, but must be an id.
            **inputs: see `Inputs`.

        Raises:
            ModelError: the context is longer than `max_positions`; nothing to look at for a model that follows an
                encoder.
        """
        self._check_inputs(tokens_BT, inputs)
        segments_BT = inputs.get("segments_BT")
        if segments_BT is None:
            segments_BT = torch.ones_like(tokens_BT)
        positions_BT = inputs.get("positions_BT")
        if positions_BT is None:
            positions_BT = positions_in_segments(segments_BT)
        prefix = None
        if self.prompt is not None:
            positions_BT = positions_BT + self.prompt.num_positions
            prefix = self.prompt(self.read_vectors)

        x_BTD = self.embed(self.token_embedding(tokens_BT), positions_BT, inputs)
        shared = self._share(segments_BT, positions_BT, inputs, product_dtype(x_BTD), prefix)
        for layer in range(self.config.num_layers):
            x_BTD = self.blocks[layer % len(self.blocks)](x_BTD, layer, shared)
        hidden_BTD: Tensor = self.norm(x_BTD)
        return hidden_BTD

    def read_vectors(self, vectors_1PE: Tensor) -> KeysAndValues:
        """Return the keys and values by layer that a text offers whose token embeddings are these."""
        positions_1P = torch.arange(vectors_1PE.shape[1], device=vectors_1PE.device).unsqueeze(0)
        x_1PD = self.embed(vectors_1PE, positions_1P, {})
        shared = self._share(torch.ones_like(positions_1P), positions_1P, {}, product_dtype(x_1PD))
        kept: list[tuple[Tensor, Tensor]] = []
        shared = replace(shared, kept=kept)
        for layer in range(self.config.num_layers):
            x_1PD = self.blocks[layer % len(self.blocks)](x_1PD, layer, shared)
        return kept

    def embed(self, x_BTE: Tensor, positions_BT: Tensor, inputs: Inputs) -> Tensor:
        """Return x_BTD, what the first block reads, of token embeddings."""
        for embedding, ids_BT in (
            (self.type_embedding, inputs.get("types_BT")),
            (self.position_embedding, positions_BT),
            (self.task_embedding, inputs.get("tasks_BT")),
        ):
            if embedding is not None:
                x_BTE = x_BTE + embedding(torch.zeros_like(positions_BT) if ids_BT is None else ids_BT)
        if self.config.positions == "sinusoidal":
            x_BTE = x_BTE + sinusoids(positions_BT, width=x_BTE.shape[-1], dtype=x_BTE.dtype)
        x_BTD: Tensor = self.embedding_projection(self.embedding_norm(x_BTE))
        return x_BTD

    def _share(
        self,
        segments_BT: Tensor,
        positions_BT: Tensor,
        inputs: Inputs,
        dtype: torch.dtype,
        prefix: KeysAndValues | None = None,
    ) -> Pass:
        """Compute once what all blocks need."""
        config = self.config
        masks, pages = {}, inputs.get("pages")
        if pages is not None:
            pages.prepare(config, dtype, self.relative_bias, prefix)
        for kind in dict.fromkeys(config.masks) if pages is None else ():
            masks[kind] = additive_mask(
                segments_BT,
                dtype,
                kind=kind,
                band_width=config.band_width,
                prefix_BT=inputs.get("prefix_BT"),
                branches_BT=inputs.get("branches_BT"),
            )
            if self.relative_bias is not None:
                masks[kind] = masks[kind] + self.relative_bias(segments_BT.shape[1]).to(dtype)
            if prefix is not None:
                band_width = config.band_width if kind == "banded" else None
                before = prefix_mask(prefix[0][0].shape[2], positions_BT, dtype, band_width=band_width)
                masks[kind] = torch.cat((before.expand(*masks[kind].shape[:-1], -1), masks[kind]), dim=-1)
        turn = None
        if config.positions == "rotary":
            turn = rotation(
                positions_BT,
                head_width=config.head_width,
                theta=config.rope_theta,
                dtype=dtype,
                scaling=config.rope_scaling,
            )
        memory_BMD, memory_segments_BM = inputs.get("memory_BMD"), inputs.get("memory_segments_BM")
        if memory_BMD is not None and memory_segments_BM is None:
            memory_segments_BM = torch.ones(memory_BMD.shape[:2], dtype=torch.int64, device=memory_BMD.device)
        return Pass(
            real_BT=segments_BT != 0,
            masks=masks,
            turn=turn,
            memory_BMD=memory_BMD,
            memory_mask_B1TM=None
            if memory_segments_BM is None
            else memory_mask(segments_BT, memory_segments_BM, dtype),
            reports=inputs.get("reports"),
            generator=inputs.get("generator"),
            prefix=prefix if pages is None else None,
            pages=pages,
        )

    def _check_inputs(self, tokens_BT: Tensor, inputs: Inputs) -> None:
        length = tokens_BT.shape[1]
        if self.config.bounded and length > self.config.max_positions:
            raise ModelError(f"{length} positions given to a model of {self.config.max_positions}; shorten the input")
        pages = inputs.get("pages")
        if inputs.get("branches_BT") is not None:
            by_place = self.config.positions == "relative" or "banded" in self.config.masks
            if by_place or inputs.get("positions_BT") is None:
                raise ModelError("branches need explicit positions, and a model without relative biases or bands")
        given = inputs.get("memory_BMD") is not None or (pages is not None and pages.memory is not None)
        if given != bool(self.config.encoder_layers):
            wanted = "an encoder's result" if self.config.encoder_layers else "none"
            raise ModelError(f"memory {'given' if given else 'missing'}; a model of this shape wants {wanted}")

    def _initialise(self, generator: torch.Generator) -> None:
        block_std = self.config.initial_std
        residual_std = block_std / (2 * self.config.num_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if ".experts." in name:
                continue  # they have a rule of their own
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 1:
                nn.init.ones_(parameter)
            elif name.endswith(("attention.out.weight", "cross.out.weight", "feed_forward.down.weight")):
                nn.init.normal_(parameter, std=residual_std, generator=generator)
            else:
                std = block_std if name.startswith("blocks.") else EMBEDDING_STD
                nn.init.normal_(parameter, std=std, generator=generator)
        for module in self.modules():
            if isinstance(module, Experts):
                module.initialise(generator)
