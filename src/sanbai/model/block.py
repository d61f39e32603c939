"""One block: attention, attention to an encoder, feed-forward or experts, each beside a residual path with its norm.

Which of them and of what kind is `ModelConfig`'s to say. Departures from the usual code: query, key and value are one
projection, and what all blocks need in a pass (masks, rotation) is computed once and handed down as a `Pass`.

Shapes: B rows, T positions, M positions of an encoder's result, D width, H query heads, G key-value heads, P = H + 2 G
projected heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanbai.model.adapters.prompts import KeysAndValues
from sanbai.model.attention import attention
from sanbai.model.config import FeedForwardKind, Mask, ModelConfig
from sanbai.model.experts import Experts, RouterReport
from sanbai.model.norm import make_norm
from sanbai.model.paged import Pages
from sanbai.model.rotary import Rotation, rotate

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


@dataclass(frozen=True, slots=True)
class Pass:
    """What the blocks share in one pass."""

    real_BT: Tensor
    """False on padding, which no expert reads."""
    masks: Mapping[Mask, Tensor]
    """mask_BHTT by kind, first axes perhaps 1."""
    turn: Rotation | None
    memory_BMD: Tensor | None
    memory_mask_B1TM: Tensor | None
    reports: list[RouterReport] | None
    generator: torch.Generator | None
    prefix: KeysAndValues | None = None
    """Learned keys and values before those of the text; the masks count them."""
    kept: list[tuple[Tensor, Tensor]] | None = None
    """Gets each layer's keys and values appended."""
    pages: Pages | None = None
    """Where rows of one token find the keys and values of their texts, in the place of masks."""


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
        """Mix positions."""
        B, T, _ = x_BTD.shape
        H, G = self.config.num_heads, self.config.num_kv_heads
        qkv_BTPK = self.qkv(x_BTD).view(B, T, H + 2 * G, self.config.head_width)
        qk_BTPK, v_BTGK = qkv_BTPK.split((H + G, G), dim=2)
        if self.query_norm is not None and self.key_norm is not None:
            # Autocast leaves norms alone: they want the precision of the stream, not that of products.
            q_BTHK, k_BTGK = qk_BTPK.to(x_BTD.dtype).split((H, G), dim=2)
            qk_BTPK = torch.cat((self.query_norm(q_BTHK), self.key_norm(k_BTGK)), dim=2).to(qk_BTPK.dtype)
        if shared.turn is not None:
            qk_BTPK = rotate(qk_BTPK, shared.turn)
        q_BHTK, k_BGTK = qk_BTPK.transpose(1, 2).split((H, G), dim=1)
        k, v = k_BGTK, v_BTGK.transpose(1, 2)
        if shared.kept is not None:
            shared.kept.append((k, v))
        if shared.prefix is not None:
            k, v = (
                torch.cat((learned.to(own.dtype).expand(B, -1, -1, -1), own), dim=2)
                for learned, own in zip(shared.prefix[layer], (k, v), strict=True)
            )
        kind = self.config.mask_of(layer)
        if shared.pages is not None:
            mixed_BHTK = shared.pages.attend(
                layer,
                q_BHTK[:, :, 0],
                torch.cat((k, v), dim=1)[:, :, 0],
                kind=kind,
                scaled=self.config.scaled_attention,
            )
        else:
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
        """Mix in what the encoder saw."""
        q_BHTK = self.query(x_BTD).unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2)
        scaled = self.config.scaled_attention
        if shared.pages is not None:
            mixed_BHTK = shared.pages.look_at_memory(layer, q_BHTK, scaled=scaled)
        else:
            assert shared.memory_BMD is not None
            assert shared.memory_mask_B1TM is not None
            memory = self.project(shared.memory_BMD)
            mixed_BHTK = attention(q_BHTK, *memory, shared.memory_mask_B1TM, scaled=scaled, causal=False)
        out_BTD: Tensor = self.out(mixed_BHTK.transpose(1, 2).flatten(2))
        return out_BTD

    def project(self, memory_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Return k_BGMK and v_BGMK of what an encoder saw."""
        kv_BPMK = self.key_value(memory_BMD).unflatten(-1, (-1, self.config.head_width)).transpose(1, 2)
        k_BGMK, v_BGMK = kv_BPMK.chunk(2, dim=1)
        return k_BGMK, v_BGMK


class FeedForward(nn.Module):
    """down(f(up x)), or down(f(gate x) * up x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.feed_forward]
        bias = config.has_bias("feed_forward")
        self.gate = None
        if config.gated:
            self.gate = nn.Linear(config.width, config.feed_forward_width, bias=bias)
        self.up = nn.Linear(config.width, config.feed_forward_width, bias=bias)
        self.down = nn.Linear(config.feed_forward_width, config.width, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Transform each position on its own."""
        x_BTD = x_BTD.to(product_dtype(x_BTD))  # once for both projections; autocast would do it for each
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
                gated=config.gated,
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
        out_BTD, report = self.experts(
            x_BTD, mask_BT=shared.real_BT, generator=shared.generator, competing=shared.pages is None
        )
        if shared.reports is not None:
            shared.reports.append(report)
        return out_BTD


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that matrix products give: autocast's where it is on, else the input's."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
