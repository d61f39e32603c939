"""The one Transformer: embedding, blocks of attention and feed-forward, a last norm.

Which norm, positions, feed-forward, heads and biases is `ModelConfig`'s to say; nothing here asks for a model's name.
Departures from the usual code: query, key and value are one projection; masks come from segments (`mask.py`); the
residual stream keeps the parameters' dtype under autocast, only matrix products are cast.

Initialisation is GPT-2's: normal with standard deviation 0.02, divided by sqrt(2 layers) in the projections that write
into the residual stream, norms 1, biases 0.

Shapes: B rows, T new positions, S positions with cached ones, D width, H query heads, G key-value heads, K head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanbai.foundation.errors import ModelError
from sanbai.model.attention import attention
from sanbai.model.cache import KeyValueCache
from sanbai.model.config import ModelConfig
from sanbai.model.mask import additive_mask, positions_in_segments
from sanbai.model.norm import make_norm
from sanbai.model.rotary import Rotation, rotate, rotation

#: Of fresh embeddings and heads (Radford et al. 2019).
EMBEDDING_STD = 0.02


class Attention(nn.Module):
    """Multi-head attention with grouped key-value heads (Ainslie et al. 2023, arXiv:2305.13245)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads, self.num_kv_heads, self.head_width = config.num_heads, config.num_kv_heads, config.head_width
        projected = (config.num_heads + 2 * config.num_kv_heads) * config.head_width
        self.qkv = nn.Linear(config.width, projected, bias=config.bias)
        self.out = nn.Linear(config.num_heads * config.head_width, config.width, bias=config.bias)

    def forward(self, x_BTD: Tensor, mask_B1TS: Tensor, turn: Rotation | None, cache: KeyValueCache | None) -> Tensor:
        """Mix positions; writes the new keys and values into `cache` if there is one."""
        B, T, _ = x_BTD.shape
        H, G = self.num_heads, self.num_kv_heads
        qkv_BTPK = self.qkv(x_BTD).view(B, T, H + 2 * G, self.head_width)
        qk_BTPK, v_BTGK = qkv_BTPK.split((H + G, G), dim=2)
        if turn is not None:
            qk_BTPK = rotate(qk_BTPK, turn)
        q_BHTK, k_BGTK = qk_BTPK.transpose(1, 2).split((H, G), dim=1)
        v_BGTK = v_BTGK.transpose(1, 2)
        if cache is None:
            mixed_BHTK = attention(q_BHTK, k_BGTK, v_BGTK, mask_B1TS)
        else:
            mixed_BHTK = attention(q_BHTK, *cache.write(self.layer, k_BGTK, v_BGTK), mask_B1TS)
        out_BTD: Tensor = self.out(mixed_BHTK.transpose(1, 2).flatten(2))
        return out_BTD


class FeedForward(nn.Module):
    """Two projections with GPT-2's GELU between, or three with SiLU gating (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = None
        if config.feed_forward == "swiglu":
            self.gate = nn.Linear(config.width, config.feed_forward_width, bias=config.bias)
        self.up = nn.Linear(config.width, config.feed_forward_width, bias=config.bias)
        self.down = nn.Linear(config.feed_forward_width, config.width, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Transform each position on its own."""
        x_BTD = x_BTD.to(_product_dtype(x_BTD))  # once for both projections; autocast would do it for each
        up = self.up(x_BTD)
        inner = F.gelu(up, approximate="tanh") if self.gate is None else F.silu(self.gate(x_BTD)) * up
        out_BTD: Tensor = self.down(inner)
        return out_BTD


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, layer)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BTD: Tensor, mask_B1TS: Tensor, turn: Rotation | None, cache: KeyValueCache | None) -> Tensor:
        """One layer of the residual stream."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), mask_B1TS, turn, cache)
        out_BTD: Tensor = x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))
        return out_BTD


class Transformer(nn.Module):
    """Token ids in, one vector a position out; the trunk that every head stands on."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialise; without a generator the parameters are left for a loader to fill."""
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = None
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.max_positions, config.width)
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.num_layers)])
        self.norm = make_norm(config)
        if generator is not None:
            self._initialise(generator)

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        segments_BT: Tensor | None = None,
        branches_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return hidden_BTD after the last norm.

        Args:
            tokens_BT: ids; what stands on padding is never looked at, but must be an id.
            positions_BT: by default counted from the start of each segment.
            segments_BT: attention stays within a segment; 0 is padding; by default all one segment. See `mask.py`.
            branches_BT: branches of segments that are trees; needs `positions_BT`, and no cache.
            cache: positions read before; the new ones are added. Their segments continue the old ones'.

        Raises:
            ModelError: the context is longer than `max_positions`, or than the cache.
        """
        if segments_BT is None:
            segments_BT = torch.ones_like(tokens_BT)
        num_new = tokens_BT.shape[1]
        segments_BS = segments_BT if cache is None else cache.append_segments(segments_BT)
        if positions_BT is None:
            assert branches_BT is None
            positions_BT = positions_in_segments(segments_BS)[:, -num_new:]
        assert branches_BT is None or cache is None
        self._check_length(num_new, cache)

        x_BTD = self.token_embedding(tokens_BT)
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding(positions_BT)
        dtype = _product_dtype(x_BTD)
        mask_B1TS = additive_mask(num_new, segments_BS, dtype, branches_BS=branches_BT)
        turn = None
        if self.config.positions == "rotary":
            turn = rotation(positions_BT, head_width=self.config.head_width, theta=self.config.rope_theta, dtype=dtype)
        for block in self.blocks:
            x_BTD = block(x_BTD, mask_B1TS, turn, cache)
        if cache is not None:
            cache.advance(num_new)
        hidden_BTD: Tensor = self.norm(x_BTD)
        return hidden_BTD

    def _check_length(self, num_new: int, cache: KeyValueCache | None) -> None:
        # A cached batch is padded to a common length, so only its capacity can be checked without looking at the rows.
        if cache is None and num_new > self.config.max_positions:
            raise ModelError(f"{num_new} positions given to a model of {self.config.max_positions}; shorten the input")

    def _initialise(self, generator: torch.Generator) -> None:
        block_std = self.config.initial_std
        residual_std = block_std / (2 * self.config.num_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 1:
                nn.init.ones_(parameter)
            elif name.endswith(("attention.out.weight", "feed_forward.down.weight")):
                nn.init.normal_(parameter, std=residual_std, generator=generator)
            else:
                std = block_std if name.startswith("blocks.") else EMBEDDING_STD
                nn.init.normal_(parameter, std=std, generator=generator)


def _product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that matrix products give: autocast's where it is on, else the input's."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
