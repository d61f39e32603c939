"""Guesses of a small model: it writes ahead, the large one reads along (`speculation.py`).

The small model keeps its keys and values in blocks of its own with the numbers of the large one's, so the accounts of
the one are those of both. It draws by each row's rules with the numbers that will decide the large model's draws.

Shapes: R rows still guessed for, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch

from sanbai.foundation.errors import ModelError
from sanbai.generation.blocks import BlockPool
from sanbai.generation.model_runner import ModelRunner
from sanbai.generation.reading import Arranger
from sanbai.generation.row import Row
from sanbai.generation.row_drawing import RowDrawer
from sanbai.generation.scheduler import Chunk, Plan
from sanbai.model.heads import LanguageModel
from sanbai.model.paged import PagedCache, check_pageable
from sanbai.model.window import Window


class _Read(NamedTuple):
    """How far the small model has read a row."""

    num_cached: int
    lease: object
    num_ids: int
    """Of the text, when guessing began."""
    draft: list[int]
    """The guesses that it went on with."""


class DraftProposer:
    """A small model and its cache."""

    def __init__(
        self, model: LanguageModel, pool: BlockPool, *, vocab_size: int, max_rows: int, step_tokens: int
    ) -> None:
        """Take room for its cache.

        Args:
            model: used as it is.
            pool: of the large model's blocks.
            vocab_size: of the large model.
            max_rows: answers in the making at most.
            step_tokens: tokens that the small model reads at a time.

        Raises:
            ModelError: another vocabulary, or a model that cannot be paged.
        """
        check_pageable(model.config)
        if model.config.encoder_layers:
            raise ModelError("a draft model that follows an encoder; give one that writes on from a text")
        if model.config.vocab_size != vocab_size:
            raise ModelError(
                f"a draft model of {model.config.vocab_size} tokens for one of {vocab_size}; give one alike"
            )
        self._model, self._step_tokens = model, step_tokens
        self._runner = ModelRunner(model)
        dtype, self._device = model.head_weight.dtype, model.head_weight.device
        cache = PagedCache(
            model.config, num_blocks=pool.num_blocks, block_size=pool.size, dtype=dtype, device=self._device
        )
        window = Window(model.config, dtype=dtype, device=self._device, max_lanes=max_rows)
        self._arranger = Arranger(cache, window, self._device)
        self._drawer = RowDrawer(self._device)
        self._read: WeakKeyDictionary[Row, _Read] = WeakKeyDictionary()

    def propose(self, asked: Sequence[tuple[Row, int]]) -> None:
        """As `Proposer`; a row whose text has still to be read gets no guesses before it is."""
        count_of = {id(row): count for row, count in asked}
        rows = [row for row, count in asked if len(row.ids) + count <= self._model.config.max_positions]
        left = self._step_tokens
        while rows:
            chunks = []
            for row in rows:
                start = self._num_cached(row)
                end = min(len(row.ids) + len(row.draft), start + left)
                if end > start:
                    chunks.append(Chunk(row, start, end))
                    left -= end - start
            if not chunks:
                return
            rows = [row for row in self._advance(chunks) if len(row.draft) < count_of[id(row)]]

    def _advance(self, chunks: Sequence[Chunk]) -> list[Row]:
        """Read on; return the rows that have got a guess."""
        reading = self._arranger.prepare(Plan([], list(chunks), []))
        hidden_AD = self._runner.read(reading)
        done, places = [], []
        for place, chunk in enumerate(chunks):
            row = chunk.row
            self._read[row] = _Read(chunk.end, row.lease, len(row.ids), row.draft)
            if chunk.end == len(row.ids) + len(row.draft):
                done.append(row)
                places.append(place)
        if not done:
            return []
        logits_RV = self._runner.logits(hidden_AD[torch.tensor(places, device=self._device)])
        drawn = self._drawer.draw(done, [len(row.draft) for row in done], logits_RV)
        for row, token in zip(done, drawn.token_B.tolist(), strict=True):
            row.draft.append(token)
        return done

    def _num_cached(self, row: Row) -> int:
        """Return how many positions of a row lie in the cache: none of blocks that it did not have, no wrong guess."""
        read = self._read.get(row)
        if read is None or read.lease is not row.lease:
            return 0
        if row.draft:  # in the midst of this step's guesses
            return read.num_cached
        agreed = 0
        for token, guess in zip(row.ids[read.num_ids :], read.draft, strict=False):
            if token != guess:
                break
            agreed += 1
        return min(read.num_cached, read.num_ids + agreed)
