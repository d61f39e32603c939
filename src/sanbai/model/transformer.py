"""The one Transformer: embeddings, blocks of attention and feed-forward, a last norm.

GPT, Llama, BERT and T5 are rows of `ModelConfig`; nothing here asks for a model's name. Departures from the usual code:
query, key and value are one projection; masks come from segments (`mask.py`); the residual stream keeps the parameters'
dtype under autocast, only matrix products are cast.

Initialisation is GPT-2's: normal with standard deviation 0.02, divided by sqrt(2 layers) in the projections that write
into the residual stream, norms 1, biases 0; experts have a rule of their own.

Shapes: B rows, T new positions, S positions with cached ones, M positions of an encoder's result, D width, H query
heads, G key-value heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanbai.foundation.errors import ModelError
from sanbai.model.attention import attention
from sanbai.model.cache import KeyValueCache
from sanbai.model.config import FeedForwardKind, Mask, ModelConfig
from sanbai.model.experts import Experts, RouterReport
from sanbai.model.mask import additive_mask, memory_mask, positions_in_segments
from sanbai.model.norm import make_norm
from sanbai.model.relative import RelativeBias
from sanbai.model.rotary import Rotation, rotate, rotation
from sanbai.model.sinusoid import sinusoids

#: Of fresh embeddings and heads (Radford et al. 2019).
EMBEDDING_STD = 0.02

ACTIVATIONS: dict[FeedForwardKind, Callable[[Tensor], Tensor]] = {
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "squared_relu": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}
"""What stands between a feed-forward's projections."""
GATED = ("swiglu", "geglu", "geglu_tanh")
"""Those that gate a third projection (Shazeer 2020, arXiv:2002.05202)."""


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
    memory_BMD: Tensor | None
    """An encoder's result, for the blocks to look at; a cache keeps it from its first pass on."""
    memory_segments_BM: Tensor | None
    """Its segments; by default all one."""
    cache: KeyValueCache | None
    """Positions read before; the new ones are added. Their segments continue the old ones'."""
    reports: list[RouterReport] | None
    """Gets what each sparse layer's router did appended, its losses among it."""
    generator: torch.Generator | None
    """Of the experts' jitter and dropout in training; by default torch's own."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What the blocks share in one pass."""

    real_BT: Tensor
    """False on padding, which no expert reads."""
    masks: Mapping[Mask, Tensor]
    """mask_BHTS by kind, first axes perhaps 1."""
    turn: Rotation | None
    cache: KeyValueCache | None
    memory_BMD: Tensor | None
    memory_mask_B1TM: Tensor | None
    reports: list[RouterReport] | None
    generator: torch.Generator | None


class Attention(nn.Module):
    """Multi-head attention with grouped key-value heads (Ainslie et al. 2023, arXiv:2305.13245)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        projected = (config.num_heads + 2 * config.num_kv_heads) * config.head_width
        self.qkv = nn.Linear(config.width, projected, bias=config.has_bias("qkv"))
        self.out = nn.Linear(config.num_heads * config.head_width, config.width, bias=config.has_bias("out"))
        self.query_norm = self.key_norm = None
        if config.query_key_norm:
            self.query_norm, self.key_norm = (make_norm(config, config.head_width) for _ in range(2))

    def forward(self, x_BTD: Tensor, layer: int, shared: Pass) -> Tensor:
        """Mix positions; writes the new keys and values into the cache if there is one."""
        B, T, _ = x_BTD.shape
        H, G = self.config.num_heads, self.config.num_kv_heads
        qkv_BTPK = self.qkv(x_BTD).view(B, T, H + 2 * G, self.config.head_width)
        qk_BTPK, v_BTGK = qkv_BTPK.split((H + G, G), dim=2)
        if self.query_norm is not None and self.key_norm is not None:
            q_BTHK, k_BTGK = qk_BTPK.split((H, G), dim=2)
            qk_BTPK = torch.cat((self.query_norm(q_BTHK), self.key_norm(k_BTGK)), dim=2)
        if shared.turn is not None:
            qk_BTPK = rotate(qk_BTPK, shared.turn)
        q_BHTK, k_BGTK = qk_BTPK.transpose(1, 2).split((H, G), dim=1)
        k, v = k_BGTK, v_BTGK.transpose(1, 2)
        if shared.cache is not None:
            k, v = shared.cache.write(layer, k, v)
        kind = self.config.mask_of(layer)
        causal = kind in {"causal", "banded"}
        mixed_BHTK = attention(q_BHTK, k, v, shared.masks[kind], scaled=self.config.scaled_attention, causal=causal)
        out_BTD: Tensor = self.out(mixed_BHTK.transpose(1, 2).flatten(2))
        return out_BTD


class CrossAttention(nn.Module):
    """Attention whose keys and values are an encoder's result."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        H, G, K = config.num_heads, config.num_kv_heads, config.head_width
        self.query = nn.Linear(config.width, H * K, bias=config.has_bias("qkv"))
        self.key_value = nn.Linear(config.width, 2 * G * K, bias=config.has_bias("qkv"))
        self.out = nn.Linear(H * K, config.width, bias=config.has_bias("out"))

    def forward(self, x_BTD: Tensor, layer: int, shared: Pass) -> Tensor:
        """Mix in what the encoder saw; a cache keeps its keys and values."""
        q_BHTK = self.query(x_BTD).unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2)
        memory = None if shared.cache is None else shared.cache.memory.get(layer)
        if memory is None:
            assert shared.memory_BMD is not None
            kv_BPMK = self.key_value(shared.memory_BMD).unflatten(-1, (-1, self.config.head_width)).transpose(1, 2)
            k_BGMK, v_BGMK = kv_BPMK.chunk(2, dim=1)
            memory = k_BGMK, v_BGMK
        if shared.cache is not None:
            shared.cache.memory[layer] = memory
        assert shared.memory_mask_B1TM is not None
        scaled = self.config.scaled_attention
        mixed_BHTK = attention(q_BHTK, *memory, shared.memory_mask_B1TM, scaled=scaled, causal=False)
        out_BTD: Tensor = self.out(mixed_BHTK.transpose(1, 2).flatten(2))
        return out_BTD


class FeedForward(nn.Module):
    """down(f(up x)), or down(f(gate x) * up x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.feed_forward]
        bias = config.has_bias("feed_forward")
        self.gate = None
        if config.feed_forward in GATED:
            self.gate = nn.Linear(config.width, config.feed_forward_width, bias=bias)
        self.up = nn.Linear(config.width, config.feed_forward_width, bias=bias)
        self.down = nn.Linear(config.feed_forward_width, config.width, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Transform each position on its own."""
        x_BTD = x_BTD.to(_product_dtype(x_BTD))  # once for both projections; autocast would do it for each
        up = self.up(x_BTD)
        inner = self.activation(up) if self.gate is None else self.activation(self.gate(x_BTD)) * up
        out_BTD: Tensor = self.down(inner)
        return out_BTD


class Block(nn.Module):
    """Attention, attention to an encoder where there is one, feed-forward or experts; each beside a residual path."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norm_before = config.norm_place == "before"
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.cross_norm = self.cross = None
        if config.encoder_layers:
            self.cross_norm, self.cross = make_norm(config), CrossAttention(config)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = self.experts = None
        if config.is_sparse(layer):
            self.experts = Experts(
                config.experts,
                width=config.width,
                inner_width=config.feed_forward_width,
                activation=ACTIVATIONS[config.feed_forward],
                gated=config.feed_forward in GATED,
            )
        else:
            self.feed_forward = FeedForward(config)

    def forward(self, x_BTD: Tensor, layer: int, shared: Pass) -> Tensor:
        """One layer of the residual stream."""
        out_BTD: Tensor
        if self.norm_before:
            x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), layer, shared)
            if self.cross is not None and self.cross_norm is not None:
                x_BTD = x_BTD + self.cross(self.cross_norm(x_BTD), layer, shared)
            out_BTD = x_BTD + self._transform(self.feed_forward_norm(x_BTD), shared)
        else:
            x_BTD = self.attention_norm(x_BTD + self.attention(x_BTD, layer, shared))
            if self.cross is not None and self.cross_norm is not None:
                x_BTD = self.cross_norm(x_BTD + self.cross(x_BTD, layer, shared))
            out_BTD = self.feed_forward_norm(x_BTD + self._transform(x_BTD, shared))
        return out_BTD

    def _transform(self, x_BTD: Tensor, shared: Pass) -> Tensor:
        if self.experts is None:
            assert self.feed_forward is not None
            dense_BTD: Tensor = self.feed_forward(x_BTD)
            return dense_BTD
        out_BTD: Tensor
        out_BTD, report = self.experts(x_BTD, mask_BT=shared.real_BT, generator=shared.generator)
        if shared.reports is not None:
            shared.reports.append(report)
        return out_BTD


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
        if generator is not None:
            self._initialise(generator)

    def forward(self, tokens_BT: Tensor, **inputs: Unpack[Inputs]) -> Tensor:
        """Return hidden_BTD after the last norm.

        Args:
            tokens_BT: ids; what stands on padding is never looked at, but must be an id.
            **inputs: see `Inputs`.

        Raises:
            ModelError: the context is longer than `max_positions`, or than the cache; a cache for a model that looks
                ahead; nothing to look at for one that follows an encoder.
        """
        cache = inputs.get("cache")
        self._check_inputs(tokens_BT, inputs)
        segments_BT = inputs.get("segments_BT")
        if segments_BT is None:
            segments_BT = torch.ones_like(tokens_BT)
        segments_BS = segments_BT if cache is None else cache.append_segments(segments_BT)
        positions_BT = inputs.get("positions_BT")
        if positions_BT is None:
            positions_BT = positions_in_segments(segments_BS)[:, -tokens_BT.shape[1] :]

        x_BTD = self._embed(tokens_BT, positions_BT, inputs)
        shared = self._share(segments_BS, positions_BT, inputs, _product_dtype(x_BTD))
        for layer in range(self.config.num_layers):
            x_BTD = self.blocks[layer % len(self.blocks)](x_BTD, layer, shared)
        if cache is not None:
            cache.advance(tokens_BT.shape[1])
        hidden_BTD: Tensor = self.norm(x_BTD)
        return hidden_BTD

    def _embed(self, tokens_BT: Tensor, positions_BT: Tensor, inputs: Inputs) -> Tensor:
        x_BTE: Tensor = self.token_embedding(tokens_BT)
        for embedding, ids_BT in (
            (self.type_embedding, inputs.get("types_BT")),
            (self.position_embedding, positions_BT),
            (self.task_embedding, inputs.get("tasks_BT")),
        ):
            if embedding is not None:
                x_BTE = x_BTE + embedding(torch.zeros_like(tokens_BT) if ids_BT is None else ids_BT)
        if self.config.positions == "sinusoidal":
            x_BTE = x_BTE + sinusoids(positions_BT, width=x_BTE.shape[-1], dtype=x_BTE.dtype)
        x_BTD: Tensor = self.embedding_projection(self.embedding_norm(x_BTE))
        return x_BTD

    def _share(self, segments_BS: Tensor, positions_BT: Tensor, inputs: Inputs, dtype: torch.dtype) -> Pass:
        """Compute once what all blocks need."""
        config, cache = self.config, inputs.get("cache")
        num_new, num_keys = positions_BT.shape[1], segments_BS.shape[1]
        masks = {}
        for kind in dict.fromkeys(config.masks):
            masks[kind] = additive_mask(
                num_new, segments_BS, dtype, kind=kind, band_width=config.band_width, prefix_BT=inputs.get("prefix_BT")
            )
            if self.relative_bias is not None:
                masks[kind] = masks[kind] + self.relative_bias(num_new, num_keys).to(dtype)
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
        if cache is not None and memory_segments_BM is not None:
            cache.memory_segments_BM = memory_segments_BM
        elif cache is not None:
            memory_segments_BM = cache.memory_segments_BM
        mask_B1TM = None
        if memory_segments_BM is not None:
            mask_B1TM = memory_mask(segments_BS[:, -num_new:], memory_segments_BM, dtype)
        return Pass(
            real_BT=segments_BS[:, -num_new:] != 0,
            masks=masks,
            turn=turn,
            cache=cache,
            memory_BMD=memory_BMD,
            memory_mask_B1TM=mask_B1TM,
            reports=inputs.get("reports"),
            generator=inputs.get("generator"),
        )

    def _check_inputs(self, tokens_BT: Tensor, inputs: Inputs) -> None:
        cache, num_new = inputs.get("cache"), tokens_BT.shape[1]
        # A cached batch is padded to a common length, so only its capacity can be checked without looking at the rows.
        bounded = self.config.positions not in {"relative", "none"}
        if bounded and cache is None and num_new > self.config.max_positions:
            raise ModelError(f"{num_new} positions given to a model of {self.config.max_positions}; shorten the input")
        if cache is not None and "full" in self.config.masks:
            raise ModelError("a cache was given to a model whose positions look ahead; give it the whole text at once")
        given = inputs.get("memory_BMD") is not None or (cache is not None and cache.memory_segments_BM is not None)
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


def _product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that matrix products give: autocast's where it is on, else the input's."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
