"""One step of the continuous engine: the training model's numbers, by fewer and larger operations.

With one token a text, a step's time on a CPU is memory traffic and the calls themselves: the modules of `block.py` make
some 45 calls a layer, this file a third. Activations, gates and residuals are computed along with the products
(`packed.py`), scale and mask along with the scores, keys and values are written at once, and of the last layer only
what is wanted is computed.

Steps are computed in the model's precision; only a single token of a packed model is computed in float32 around
products of a form of its own (`row_product.py`), where there is one. On a CPU's matrix unit many rows are filled up to
a number that comes often (`rows_to_fill`): prompts of a new length would wait longer for kernels than for products.

Shapes: N tokens of the step, A wanted, W width, H query heads, G key-value heads, M = H + 2 G, K head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanbai.foundation.device import rows_to_fill
from sanbai.model.block import Block
from sanbai.model.config import Mask
from sanbai.model.heads import LanguageModel
from sanbai.model.packed import PackedLinear, fused_linear
from sanbai.model.paged import Pages
from sanbai.model.rotary import Rotation, rotate, rotation

Norm = Callable[[Tensor], Tensor]


class _Layer(NamedTuple):
    """A block's parts, its norms for a residual stream of one precision; looking them up in modules takes time."""

    mask: Mask
    attention_norm: Norm
    qkv: nn.Module
    query_norm: Norm
    key_norm: Norm
    out: nn.Module
    feed_forward_norm: Norm
    gate: nn.Module | None
    up: nn.Module
    down: nn.Module

    @property
    def by_rows(self) -> bool:
        """Whether all its matrices have a form for one row."""
        matrices = (self.qkv, self.out, self.up, self.down, *(() if self.gate is None else (self.gate,)))
        return all(isinstance(each, PackedLinear) and each.by_rows for each in matrices)


class FusedStep:
    """A model's weights as they stand; make a new one after they have changed."""

    def __init__(self, model: LanguageModel) -> None:
        """Prepare; `can_fuse` says for which models."""
        trunk = model.trunk
        self._trunk, self._config = trunk, model.config
        self._dtype = model.head_weight.dtype
        self._layers = {self._dtype: self._layers_in(self._dtype)}
        self._by_rows = all(layer.by_rows for layer in self._layers[self._dtype][0])
        if self._by_rows:
            self._layers[torch.float32] = self._layers_in(torch.float32)

    def __call__(self, token_N: Tensor, position_N: Tensor, pages: Pages, wanted_A: Tensor | None = None) -> Tensor:
        """Return hidden_AW after the last norm, in the model's precision or, of a single token, in float32.

        Args:
            token_N: ids.
            position_N: of each within its text.
            pages: of the step; its window and blocks are written.
            wanted_A: indices of the tokens whose hidden vectors are returned; by default all.
        """
        alone = self._by_rows and token_N.shape[0] == 1
        hidden_AW = self._run(token_N, position_N, pages, wanted_A, torch.float32 if alone else self._dtype)
        pages.store()
        return hidden_AW

    def _run(
        self, token_N: Tensor, position_N: Tensor, pages: Pages, wanted_A: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        config, trunk = self._config, self._trunk
        x_NW = trunk.embed(trunk.token_embedding(token_N).unsqueeze(1), position_N.unsqueeze(1), {})[:, 0].to(dtype)
        pages.prepare(config, self._dtype)
        turn = None
        if config.positions == "rotary":
            turn = rotation(
                position_N.unsqueeze(0),
                head_width=config.head_width,
                theta=config.rope_theta,
                dtype=dtype,
                scaling=config.rope_scaling,
            )
        layers, last_norm = self._layers[dtype]
        num_tokens, num_more = len(x_NW), rows_to_fill(x_NW)
        x_NW = _with_rows(x_NW, num_more)
        for number, layer in enumerate(layers):
            qkv_NP = fused_linear(layer.qkv, layer.attention_norm(x_NW))[:num_tokens]
            qkv_NMK = self._project(qkv_NP, layer, turn)
            q_NHK, kv_NMK = qkv_NMK[:, : config.num_heads], qkv_NMK[:, config.num_heads :]
            mixed_NH1K = pages.attend(number, q_NHK, kv_NMK, kind=layer.mask, scaled=config.scaled_attention)
            mixed_NW = mixed_NH1K.flatten(1)
            if wanted_A is not None and number == config.num_layers - 1:
                x_NW, mixed_NW = x_NW[wanted_A], mixed_NW[wanted_A]
                num_tokens, num_more = len(wanted_A), 0
            x_NW = fused_linear(layer.out, _with_rows(mixed_NW, num_more), plus=x_NW)
            normed_NW, kind = layer.feed_forward_norm(x_NW), config.feed_forward
            gate = None if layer.gate is None else fused_linear(layer.gate, normed_NW, activation=kind)
            inner = fused_linear(layer.up, normed_NW, activation=kind if gate is None else None, times=gate)
            x_NW = fused_linear(layer.down, inner, plus=x_NW)
        return last_norm(x_NW[:num_tokens])

    def _project(self, qkv_NP: Tensor, layer: _Layer, turn: Rotation | None) -> Tensor:
        """Return queries, keys and values, head by head, normed and turned."""
        H, G = self._config.num_heads, self._config.num_kv_heads
        qkv_NMK = qkv_NP.view(-1, H + 2 * G, self._config.head_width)
        if self._config.query_key_norm:
            q_NHK, k_NGK, v_NGK = torch.split(qkv_NMK, [H, G, G], dim=1)
            qkv_NMK = torch.cat((layer.query_norm(q_NHK), layer.key_norm(k_NGK), v_NGK), dim=1)
        if turn is not None:
            turned = rotate(qkv_NMK[:, : H + G].unsqueeze(0), turn)[0]
            qkv_NMK = torch.cat((turned, qkv_NMK[:, H + G :]), dim=1)
        return qkv_NMK

    def _layers_in(self, dtype: torch.dtype) -> tuple[list[_Layer], Norm]:
        """Return the layers, and the last norm, for a residual stream of this precision."""
        trunk, layers = self._trunk, []
        for number in range(self._config.num_layers):
            block = trunk.blocks[number % len(trunk.blocks)]
            assert isinstance(block, Block)
            assert block.feed_forward is not None
            attention, feed_forward = block.attention, block.feed_forward
            layers.append(
                _Layer(
                    mask=self._config.mask_of(number),
                    attention_norm=_norm(block.attention_norm, dtype),
                    qkv=attention.qkv,
                    query_norm=_norm(attention.query_norm, dtype),
                    key_norm=_norm(attention.key_norm, dtype),
                    out=attention.out,
                    feed_forward_norm=_norm(block.feed_forward_norm, dtype),
                    gate=feed_forward.gate,
                    up=feed_forward.up,
                    down=feed_forward.down,
                )
            )
        return layers, _norm(trunk.norm, dtype)


def _with_rows(x_NW: Tensor, num_more: int) -> Tensor:
    """Return rows with some of zeros behind them, of which nothing is taken."""
    return F.pad(x_NW, (0, 0, 0, num_more)) if num_more else x_NW


def can_fuse(model: LanguageModel) -> bool:
    """Return whether `FusedStep` computes this model: norms before, no experts, no relative positions, no adapters."""
    config, trunk = model.config, model.trunk
    return (
        config.norm_place == "before"
        and config.sparse_layers == "none"
        and not config.encoder_layers
        and config.positions != "relative"
        and trunk.prompt is None
        and all(_is_plain(block) for block in trunk.blocks)
    )


def _is_plain(block: nn.Module) -> bool:
    """Return whether a block's projections are nothing but matrices."""
    assert isinstance(block, Block)
    assert block.feed_forward is not None
    attention, inner = block.attention, block.feed_forward
    linears = [attention.qkv, attention.out, inner.up, inner.down, *([] if inner.gate is None else [inner.gate])]
    return all(type(linear) in {nn.Linear, PackedLinear} for linear in linears)


def _norm(module: nn.Module | None, dtype: torch.dtype) -> Norm:
    """Return a norm as one call, its weights in this precision."""
    if isinstance(module, nn.LayerNorm):
        weight, bias = module.weight.to(dtype), module.bias.to(dtype)
        return partial(
            torch.layer_norm, normalized_shape=module.normalized_shape, weight=weight, bias=bias, eps=module.eps
        )
    if isinstance(module, nn.RMSNorm):
        weight = module.weight.to(dtype)
        return partial(F.rms_norm, normalized_shape=list(module.normalized_shape), weight=weight, eps=module.eps)
    return lambda x: x
