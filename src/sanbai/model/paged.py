"""Keys and values of many texts in blocks of equal size, and one step's attention to them.

A text's positions lie in blocks that need not be neighbours, so texts come and go without leaving holes, and texts that
begin alike may point to the same blocks. Which block is whose is not known here (`generation/blocks.py`): a step brings
the tables.

A step reads N tokens of many texts at once, as N rows of one token, so that everything but attention is the training
model's code unchanged; only that experts read all tokens that choose them: unrelated texts do not compete for places.
Attention has two ways. Texts that read one token each look at a window (`window.py`), which keeps their keys and values
side by side, and perhaps at a beginning that they share (`stems.py`). Chunks of prompts have their blocks gathered,
padded among chunks of like length.

Shapes: L layers, N tokens of the step, D of them of texts that read one token, R chunks, T their longest, M blocks of
the longest table, P positions a block, S = M P positions, H query heads, G key-value heads, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sanbai.foundation.errors import ModelError
from sanbai.model.adapters.prompts import KeysAndValues
from sanbai.model.attention import attention
from sanbai.model.config import Mask, ModelConfig
from sanbai.model.mask import position_mask, prefix_mask
from sanbai.model.paged_memory import StepMemory
from sanbai.model.relative import RelativeBias
from sanbai.model.stems import StepStems
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
        shape = (config.num_layers, num_blocks, block_size, 2 * config.num_kv_heads, config.head_width)
        self._kept_LNPMK = torch.zeros(shape, dtype=dtype, device=device)  # a position's keys, then its values

    def write(self, layer: int, slot_N: Tensor, kv_NMK: Tensor) -> None:
        """Store one layer's keys and values, M = 2 G heads; slot = block * block_size + place within the block."""
        self._kept_LNPMK[layer].flatten(0, 1)[slot_N] = kv_NMK.to(self._kept_LNPMK.dtype)

    def write_all(self, slot_D: Tensor, kv_LDMK: Tensor) -> None:
        """Store keys and values of all layers at once."""
        self._kept_LNPMK.flatten(1, 2)[:, slot_D] = kv_LDMK.to(self._kept_LNPMK.dtype)

    def read(self, layer: int, block_RM: Tensor) -> tuple[Tensor, Tensor]:
        """Return k_RGSK and v_RGSK of tables padded to one length with any block."""
        found = self._kept_LNPMK[layer].index_select(0, block_RM.flatten())
        k_RGSK, v_RGSK = found.view(len(block_RM), -1, *found.shape[2:]).transpose(1, 2).chunk(2, dim=1)
        return k_RGSK, v_RGSK

    def read_slots(self, slot_A: Tensor) -> Tensor:
        """Return kv_LAMK of single positions, as `write` takes them."""
        return self._kept_LNPMK.flatten(1, 2)[:, slot_A]

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole blocks in all layers."""
        self._kept_LNPMK[:, list(targets)] = self._kept_LNPMK[:, list(sources)]

    def clear(self) -> None:
        """Set everything to 0: what old weights left must not even be multiplied by 0 where it is not a number."""
        self._kept_LNPMK.zero_()


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

    def pad(self, x_NHK: Tensor) -> Tensor:
        """Return x_RHTK of the step's tokens."""
        return x_NHK[self.token_RT].transpose(1, 2)

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
    """Of the texts that read one token, counted from the first of each that lies in the window."""
    chunks: Sequence[Chunks] = ()
    memory: StepMemory | None = None
    """What an encoder has read, for a model that follows one."""
    stems: StepStems | None = None
    """What some of the D begin with, before what lies in the window."""
    drafted: bool = False
    """Whether a chunk goes on behind a token of the D, which must then lie in the blocks in the same pass."""
    _prefix: KeysAndValues | None = field(default=None, init=False)
    _place_A: Tensor = field(init=False)
    _window_masks: dict[Mask, Tensor] = field(default_factory=dict, init=False)
    _chunk_masks: dict[Mask, list[Tensor]] = field(default_factory=dict, init=False)
    _new: list[Tensor] = field(default_factory=list, init=False)

    def prepare(
        self,
        config: ModelConfig,
        dtype: torch.dtype,
        relative_bias: RelativeBias | None = None,
        prefix: KeysAndValues | None = None,
    ) -> None:
        """Compute what the layers share: masks, and places in the window.

        Args:
            config: of the model.
            dtype: of the chunks' scores.
            relative_bias: of a model that has such positions.
            prefix: learned keys and values before those of every text.

        Raises:
            ModelError: the model looks ahead.
        """
        check_pageable(config)

        def mask_of(kind: Mask, position_RT: Tensor, num_keys: int, dtype: torch.dtype) -> Tensor:
            band_width = config.band_width if kind == "banded" else None
            mask_RHTS = position_mask(position_RT, num_keys, dtype, band_width=band_width)
            if relative_bias is not None:
                ahead_RTS = torch.arange(num_keys, device=position_RT.device) - position_RT.unsqueeze(-1)
                mask_RHTS = mask_RHTS + relative_bias.of(ahead_RTS).permute(0, 3, 1, 2).to(dtype)
            if prefix is None:
                return mask_RHTS
            num_virtual = prefix[0][0].shape[2]
            before = prefix_mask(num_virtual, position_RT + num_virtual, dtype, band_width=band_width)
            return torch.cat((before.expand(*mask_RHTS.shape[:-1], -1), mask_RHTS), dim=-1)

        self._new.clear()
        self._prefix = prefix
        if self.num_decoding:
            self._place_A = self.window.places(self.position_D)
        for kind in dict.fromkeys(config.masks):
            if self.num_decoding:
                positions_D1, window = self.position_D.unsqueeze(-1), self.window
                self._window_masks[kind] = mask_of(kind, positions_D1, window.num_positions, window.dtype)
            self._chunk_masks[kind] = [
                mask_of(kind, chunk.position_RT, chunk.block_RM.shape[1] * self.cache.block_size, dtype)
                for chunk in self.chunks
            ]

    @property
    def num_decoding(self) -> int:
        """D."""
        return self.position_D.shape[0]

    def attend(self, layer: int, q_NHK: Tensor, kv_NMK: Tensor, *, kind: Mask, scaled: bool) -> Tensor:
        """Write one layer's new keys and values; return each query's average of the values it may see.

        Args:
            layer: which.
            q_NHK: queries.
            kv_NMK: the heads of the keys, then those of the values, M = 2 G.
            kind: of the layer's mask.
            scaled: whether scores are divided by sqrt(K).

        Returns:
            out_NH1K.
        """
        parts, D = [], self.num_decoding
        if D:
            self._new.append(kv_NMK[:D])
            k, v = self._behind_prefix(layer, *self.window.write(layer, self._place_A, kv_NMK[:D]))
            mask = self._window_masks[kind]
            if self.stems is None:
                mixed_DH1K = attention(q_NHK[:D].unsqueeze(2).to(k.dtype), k, v, mask, scaled=scaled)
            else:
                mixed_DH1K = self.stems.attend(layer, q_NHK[:D], k, v, mask, scaled=scaled)
            parts.append(mixed_DH1K.to(q_NHK.dtype))
        if self.chunks:
            parts += self._attend_chunks(layer, q_NHK, kv_NMK, kind=kind, scaled=scaled)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attend_chunks(self, layer: int, q_NHK: Tensor, kv_NMK: Tensor, *, kind: Mask, scaled: bool) -> list[Tensor]:
        first, parts = 0 if self.drafted else self.num_decoding, []
        self.cache.write(layer, self.slot_N[first:], kv_NMK[first:])
        for chunk, mask_R1TS in zip(self.chunks, self._chunk_masks[kind], strict=True):
            k, v = self._behind_prefix(layer, *self.cache.read(layer, chunk.block_RM))
            parts.append(chunk.unpad(attention(chunk.pad(q_NHK).to(k.dtype), k, v, mask_R1TS, scaled=scaled)))
        return [part.to(q_NHK.dtype) for part in parts]

    def _behind_prefix(self, layer: int, k_RGSK: Tensor, v_RGSK: Tensor) -> tuple[Tensor, Tensor]:
        if self._prefix is None:
            return k_RGSK, v_RGSK
        k, v = (
            torch.cat((learned.to(own.dtype).expand(len(own), -1, -1, -1), own), dim=2)
            for learned, own in zip(self._prefix[layer], (k_RGSK, v_RGSK), strict=True)
        )
        return k, v

    def look_at_memory(self, layer: int, q_NH1K: Tensor, *, scaled: bool) -> Tensor:
        """Return out_NH1K, each query's average over what an encoder has read for its text."""
        assert self.memory is not None
        parts, D = [], self.num_decoding
        if D:
            k, v, mask = self.memory.of_decoding(layer)
            parts.append(attention(q_NH1K[:D], k, v, mask, scaled=scaled, causal=False))
        for chunk, kept in zip(self.chunks, self.memory.chunks, strict=True):
            k, v, mask = kept.of(layer)
            q_RHTK = chunk.pad(q_NH1K[:, :, 0])
            parts.append(chunk.unpad(attention(q_RHTK, k, v, mask, scaled=scaled, causal=False)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def store(self) -> None:
        """Copy what the window got into the blocks, once all layers are through: one write instead of one a layer."""
        if self._new and not self.drafted:
            self.cache.write_all(self.slot_N[: self.num_decoding], torch.stack(self._new))


def check_pageable(config: ModelConfig) -> None:
    """Refuse a model whose numbers cannot come from tokens read in any company.

    One that follows an encoder wants `Pages.memory`.

    Raises:
        ModelError: it looks ahead.
    """
    if config.bidirectional:
        raise ModelError("a model that looks ahead has no cache, and writes nothing; wanted one with causal masks")
