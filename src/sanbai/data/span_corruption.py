"""Texts cut into something to read and something to write, for models with an encoder and a decoder.

Span corruption (Raffel et al. 2019, arXiv:1910.10683, section 3.1.4; the base of Switch too): 15 % of the tokens are
noise, in spans of 3 on average. Each span is replaced by a sentinel of its own in what is read; what is written is each
sentinel followed by what it stands for.

    read      Thank you <0> me to your party <1> week <end>
    written   <0> for inviting <1> last <end>

A prefix language model reads the beginning of a text and writes the rest.

Shapes: B rows, M positions read, T positions written, N tokens of one text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sanbai.data.packing import PackedBatch
from sanbai.foundation.errors import UsageError
from sanbai.text.tokenizer import Tokenizer

NOISE_SHARE = 0.15
MEAN_SPAN = 3.0

Tokens = NDArray[np.int64]
CutText = Callable[[Tokens, np.random.Generator], tuple[Tokens, Tokens]]
"""The tokens of one text, at least two -> what is read and what is written, without end marks."""


@dataclass(frozen=True, slots=True)
class SourceTargetBatch:
    """Rows to read, and rows to write beside them.

    Attributes:
        source_BM: int64 ids to read; the pad id where nothing is.
        source_segments_BM: int64, 1, 2, ... for the texts of a row, 0 on padding.
        decoder_BT: int64 ids that the decoder is given: what is written, one place to the right, behind a start mark.
        targets_BT: int64 ids that are to be learned; the token at a place is predicted *from the same place*.
        target_segments_BT: int64, the number of the text that each place is written from, 0 on padding: nothing is
            learned there.
    """

    source_BM: Tokens
    source_segments_BM: Tokens
    decoder_BT: Tokens
    targets_BT: Tokens
    target_segments_BT: Tokens

    def rows(self, part: slice) -> SourceTargetBatch:
        """Return some of the rows."""
        return SourceTargetBatch(
            self.source_BM[part],
            self.source_segments_BM[part],
            self.decoder_BT[part],
            self.targets_BT[part],
            self.target_segments_BT[part],
        )


def num_noise(length: int) -> tuple[int, int]:
    """Return the noise tokens and the spans of a text of `length` tokens, at least two.

    T5's rounding: `round(0.15 length)` tokens, between 1 and length - 1, in `round(tokens / 3)` spans, at least 1.
    """
    num_tokens = min(max(round(length * NOISE_SHARE), 1), length - 1)
    num_spans = min(max(round(num_tokens / MEAN_SPAN), 1), length - num_tokens)
    return num_tokens, num_spans


def draw_noise(length: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return which tokens of a text are noise: spans of kept and of noise tokens in turn, a kept one first.

    The lengths of both kinds are drawn evenly from all ways to cut so many tokens into so many spans.
    """
    num_tokens, num_spans = num_noise(length)
    kept_S = _cut(length - num_tokens, num_spans, generator)
    noise_S = _cut(num_tokens, num_spans, generator)
    lengths = np.stack([kept_S, noise_S], axis=1).flatten()
    return np.repeat(np.tile([False, True], num_spans), lengths)


def _cut(num_tokens: int, num_spans: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the lengths of `num_spans` spans of at least one token, `num_tokens` in all, every way equally likely."""
    cuts = np.sort(generator.permutation(num_tokens - 1)[: num_spans - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [num_tokens]]))


def corrupt_spans(tokens_N: Tokens, noise_N: NDArray[np.bool_], sentinels: Sequence[int]) -> tuple[Tokens, Tokens]:
    """Return what is read and what is written, without end marks.

    Args:
        tokens_N: one text.
        noise_N: which of its tokens are noise; the first is not.
        sentinels: ids of sentinels 0, 1, ..., at least as many as there are spans.
    """
    before_N = np.concatenate([[False], noise_N[:-1]])
    opens_N = noise_N & ~before_N
    number_N = np.cumsum(opens_N) - 1
    marked_N = np.asarray(sentinels)[number_N * opens_N]
    source = np.where(opens_N, marked_N, tokens_N)[~noise_N | opens_N]
    places = np.flatnonzero(noise_N)
    target = np.insert(tokens_N[places], np.flatnonzero(opens_N[places]), marked_N[places][opens_N[places]])
    return source, target


def span_cutter(tokenizer: Tokenizer, *, row_length: int) -> CutText:
    """Return a function that corrupts spans of a text.

    Raises:
        UsageError: the tokenizer has too few sentinels for texts of `row_length` tokens.
    """
    sentinels = tokenizer.sentinels
    _, wanted = num_noise(max(row_length, 2))
    if len(sentinels) < wanted:
        raise UsageError(
            f"{len(sentinels)} sentinels in the tokenizer, texts of {row_length} tokens need {wanted}; train it by a "
            'recipe with pretrain.objective = "span_corruption", or lower pretrain.row_length'
        )

    def cut(tokens_N: Tokens, generator: np.random.Generator) -> tuple[Tokens, Tokens]:
        return corrupt_spans(tokens_N, draw_noise(len(tokens_N), generator), sentinels)

    return cut


def cut_at_random(tokens_N: Tokens, generator: np.random.Generator) -> tuple[Tokens, Tokens]:
    """Return the beginning and the rest of a text; every place between two tokens is equally likely."""
    place = int(generator.integers(1, len(tokens_N)))
    return tokens_N[:place], tokens_N[place:]


def source_target_rows(
    batch: PackedBatch, cut: CutText, tokenizer: Tokenizer, *, generators: Sequence[np.random.Generator]
) -> SourceTargetBatch:
    """Cut every text of packed rows; both halves of a text keep its segment's number.

    The marks of documents are taken off; each half ends in one, and the decoder starts from one. Texts of fewer than
    two tokens are left out.

    Args:
        batch: rows of documents.
        cut: what cuts.
        tokenizer: knows the marks.
        generators: one a row.
    """
    mark, pad = tokenizer.reserved.end_of_text, tokenizer.reserved.pad
    sources: list[list[Tokens]] = []
    targets: list[list[Tokens]] = []
    for row_T, segments_T, generator in zip(batch.tokens_BT, batch.segments_BT, generators, strict=True):
        sources.append([])
        targets.append([])
        for segment in range(1, int(segments_T.max()) + 1):
            tokens_N = row_T[segments_T == segment]
            tokens_N = tokens_N[tokens_N != mark]
            if len(tokens_N) >= 2:
                source, target = cut(tokens_N, generator)
                sources[-1].append(np.append(source, mark))
                targets[-1].append(np.append(target, mark))
    source_BM, source_segments_BM = _lay(sources, pad)
    targets_BT, target_segments_BT = _lay(targets, pad)
    decoder_BT, _ = _lay([[np.append(mark, text[:-1]) for text in row] for row in targets], pad)
    return SourceTargetBatch(source_BM, source_segments_BM, decoder_BT, targets_BT, target_segments_BT)


def _lay(rows: Sequence[Sequence[Tokens]], pad: int) -> tuple[Tokens, Tokens]:
    """Lay the texts of each row one behind the other; return ids, and 1, 2, ... for the texts of a row."""
    width = max(1, *(sum(map(len, row)) for row in rows))
    tokens_BT, segments_BT = np.full((len(rows), width), pad, dtype=np.int64), np.zeros((len(rows), width), np.int64)
    for line, row in enumerate(rows):
        if row:
            end = sum(map(len, row))
            tokens_BT[line, :end] = np.concatenate(row)
            segments_BT[line, :end] = np.repeat(np.arange(1, len(row) + 1), [len(text) for text in row])
    return tokens_BT, segments_BT


def prefix_rows(batch: PackedBatch, *, generators: Sequence[np.random.Generator]) -> PackedBatch:
    """Make the beginning of every text of packed rows a prefix, for a decoder that sees it whole and learns the rest.

    Every place between two tokens is equally likely to be the prefix's end.
    """
    prefix_BT = np.zeros_like(batch.loss_mask_BT)
    for line, generator in enumerate(generators):
        lengths = np.bincount(batch.segments_BT[line])[1:]
        last_of_prefix = [int(generator.integers(1, length)) if length > 1 else 1 for length in lengths]
        for segment, length in enumerate(last_of_prefix, start=1):
            prefix_BT[line] |= (batch.segments_BT[line] == segment) & (batch.positions_BT[line] < length)
    return replace(batch, prefix_BT=prefix_BT, loss_mask_BT=batch.loss_mask_BT & ~prefix_BT)
