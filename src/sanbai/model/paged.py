"""Keys and values of many texts in blocks of equal size, and one step's attention to them.

A text's positions lie in blocks that need not be neighbours, so texts come and go without leaving holes, and texts that
begin alike may point to the same blocks. Which block is whose is not known here (`generation/blocks.py`): a step brings
the tables.

A step reads N tokens of many texts at once, as N rows of one token, so that everything but attention is the training
model's code unchanged. Attention has two ways. Texts that read one token each look at a window (`window.py`), which
keeps their keys and values side by side. Chunks of prompts have their blocks gathered, padded among chunks of like
length.

Shapes: L layers, N tokens of the step, D of them of texts that read one token, R chunks, T their longest, M blocks of
the longest table, P positions a block, S = M P positions, H query heads, G key-value heads, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sanbai.foundation.errors import ModelError
from sanbai.model.attention import attention
from sanbai.model.config import Mask, ModelConfig
from sanbai.model.mask import position_mask
from sanbai.model.paged_memory import StepMemory
from sanbai.model.relative import RelativeBias
from sanbai.model.window import Window


class PagedCache:
    """The blocks; written in place."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Take room for `num_blocks` blocks of `block_size` positions."""
        self.num_layers, self.block_size = config.num_layers, block_size
        shape = (config.num_layers, num_blocks, block_size, config.num_kv_heads, config.head_width)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)

    def write(self, layer: int, slot_N: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> None:
        """Store one layer's keys and values; slot = block * block_size + place within the block."""
        self._keys[layer].flatten(0, 1)[slot_N] = k_NGK
        self._values[layer].flatten(0, 1)[slot_N] = v_NGK

    def write_all(self, slot_D: Tensor, k_LDGK: Tensor, v_LDGK: Tensor) -> None:
        """Store keys and values of all layers at once."""
        self._keys.flatten(1, 2)[:, slot_D] = k_LDGK
        self._values.flatten(1, 2)[:, slot_D] = v_LDGK

    def read(self, layer: int, block_RM: Tensor) -> tuple[Tensor, Tensor]:
        """Return k_RGSK and v_RGSK of tables padded to one length with any block."""
        rows = block_RM.shape[0]
        k_RSGK, v_RSGK = (
            kept[layer].index_select(0, block_RM.flatten()).view(rows, -1, *kept.shape[-2:])
            for kept in (self._keys, self._values)
        )
        return k_RSGK.transpose(1, 2), v_RSGK.transpose(1, 2)

    def read_slots(self, slot_A: Tensor) -> tuple[Tensor, Tensor]:
        """Return k_LAGK and v_LAGK of single positions."""
        return self._keys.flatten(1, 2)[:, slot_A], self._values.flatten(1, 2)[:, slot_A]

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole blocks in all layers."""
        for kept in (self._keys, self._values):
            kept[:, list(targets)] = kept[:, list(sources)]

    def clear(self) -> None:
        """Set everything to 0: what old weights left must not even be multiplied by 0 where it is not a number."""
        self._keys.zero_()
        self._values.zero_()


@dataclass(frozen=True, slots=True)
class Chunks:
    """Texts that read several tokens each in one step, padded to one length."""

    block_RM: Tensor
    """Their tables, padded with any block."""
    position_RT: Tensor
    """Of each token; padding has any."""
    token_RT: Tensor
    """Which of the step's N tokens each is; padding is any."""
    real_A: Tensor
    """The places, in R T, of what is no padding, in the order of the step's tokens."""

    def pad(self, x_NH1K: Tensor) -> Tensor:
        """Return x_RHTK of the step's tokens."""
        return x_NH1K[:, :, 0][self.token_RT].transpose(1, 2)

    def unpad(self, x_RHTK: Tensor) -> Tensor:
        """Return the tokens of these texts, x_AH1K, in the step's order."""
        return x_RHTK.transpose(1, 2).flatten(0, 1)[self.real_A].unsqueeze(2)


@dataclass(slots=True)
class Pages:
    """One step: where its N tokens are written, and what each looks at.

    The step's tokens are those of the D texts in the window, in its order, then the chunks', one `Chunks` after the
    other.
    """

    cache: PagedCache
    window: Window
    slot_N: Tensor
    position_D: Tensor
    """Of the texts that read one token."""
    chunks: Sequence[Chunks] = ()
    memory: StepMemory | None = None
    """What an encoder has read, for a model that follows one."""
    drafted: bool = False
    """Whether a chunk goes on behind a token of the D, which must then lie in the blocks in the same pass."""
    _place_A: Tensor = field(init=False)
    _masks: dict[Mask, list[Tensor]] = field(default_factory=dict, init=False)
    _new: list[tuple[Tensor, Tensor]] = field(default_factory=list, init=False)

    def prepare(self, config: ModelConfig, dtype: torch.dtype, relative_bias: RelativeBias | None) -> None:
        """Compute the masks that the layers share: of the window first, where it is looked at, then of each chunk.

        Raises:
            ModelError: the model looks ahead, or lets tokens compete for experts over a batch.
        """
        check_pageable(config)
        looks = [(chunk.position_RT, chunk.block_RM.shape[1] * self.cache.block_size) for chunk in self.chunks]
        if len(self.position_D):
            looks.insert(0, (self.position_D.unsqueeze(-1), self.window.num_positions))
            self._place_A = self.window.places(self.position_D)
        for kind in dict.fromkeys(config.masks):
            band_width = config.band_width if kind == "banded" else None
            masks = [position_mask(at_RT, count, dtype, band_width=band_width) for at_RT, count in looks]
            if relative_bias is not None:
                key_S = torch.arange(max(count for _, count in looks), device=self.slot_N.device)
                masks = [
                    mask_R1TS + relative_bias.of(key_S[:count] - at_RT.unsqueeze(-1)).permute(0, 3, 1, 2).to(dtype)
                    for mask_R1TS, (at_RT, count) in zip(masks, looks, strict=True)
                ]
            self._masks[kind] = masks

    def attend(self, layer: int, q_NH1K: Tensor, k_NG1K: Tensor, v_NG1K: Tensor, *, kind: Mask, scaled: bool) -> Tensor:
        """Write one layer's new keys and values; return out_NH1K, each query's average of the values it may see."""
        masks, parts, D = iter(self._masks[kind]), [], len(self.position_D)
        if self.chunks:
            first = 0 if self.drafted else D
            self.cache.write(layer, self.slot_N[first:], k_NG1K[first:, :, 0], v_NG1K[first:, :, 0])
        if D:
            self._new.append((k_NG1K[:D, :, 0], v_NG1K[:D, :, 0]))
            k, v = self.window.write(layer, self._place_A, *self._new[-1])
            parts.append(attention(q_NH1K[:D], k, v, next(masks), scaled=scaled))
        for chunk in self.chunks:
            mixed_RHTK = attention(
                chunk.pad(q_NH1K), *self.cache.read(layer, chunk.block_RM), next(masks), scaled=scaled
            )
            parts.append(chunk.unpad(mixed_RHTK))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def look_at_memory(self, layer: int, q_NH1K: Tensor, *, scaled: bool) -> Tensor:
        """Return out_NH1K, each query's average over what an encoder has read for its text."""
        assert self.memory is not None
        parts, D = [], len(self.position_D)
        if D:
            k, v, mask = self.memory.of_decoding(layer)
            parts.append(attention(q_NH1K[:D], k, v, mask, scaled=scaled, causal=False))
        for chunk, kept in zip(self.chunks, self.memory.chunks, strict=True):
            k, v, mask = kept.of(layer)
            parts.append(chunk.unpad(attention(chunk.pad(q_NH1K), k, v, mask, scaled=scaled, causal=False)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def store(self) -> None:
        """Copy what the window got into the blocks, once all layers are through: one write instead of one a layer."""
        if self._new and not self.drafted:
            k_LDGK, v_LDGK = (torch.stack(layers) for layers in zip(*self._new, strict=True))
            self.cache.write_all(self.slot_N[: len(self.position_D)], k_LDGK, v_LDGK)


def check_pageable(config: ModelConfig) -> None:
    """Refuse a model whose numbers cannot come from tokens read in any company.

    One that follows an encoder wants `Pages.memory`.

    Raises:
        ModelError: one line saying why.
    """
    experts = config.experts
    competing = config.sparse_layers != "none" and not experts.dropless and experts.capacity_over == "batch"
    for refused, why in (
        (config.bidirectional, "looks ahead, and so has no cache"),
        (competing, 'lets a batch\'s tokens compete for its experts; set dropless, or capacity_over = "row"'),
    ):
        if refused:
            raise ModelError(f"a model that {why}; `generation.engine.generate` may serve it")
