"""Pairs of texts for next-sentence prediction: the second follows the first in its document, or is from elsewhere.

BERT's examples (Devlin et al. 2018, arXiv:1810.04805, section 3.1), `cls A sep B sep`, one a row. A stretch of a
document is cut between two sentences; in half of the rows what comes after the cut is replaced by what comes after a
cut of another document, so that a second text alone tells nothing. Documents without two sentences are passed over;
BERT always gave them a foreign second text, which a model can learn to see by their length.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sanbai.data.masking import MaskedBatch, Masking
from sanbai.data.packing import Cursor, Items, cut_into_pieces
from sanbai.foundation.errors import DataError
from sanbai.foundation.seeds import numpy_generator
from sanbai.text.tokenizer import Tokenizer

FOREIGN_SHARE = 0.5
"""Of the pairs, those whose second text is from elsewhere."""
SENTENCE_ENDS = (".", "!", "?", "\n", "。", "!", "?")
MAX_TRIES = 1000
"""Stretches without two sentences that are passed over in a row."""


class SentencePairs:
    """Batches of pairs without end; every stretch of every document comes once an epoch.

    A row follows from the seed and its number alone.
    """

    def __init__(
        self,
        items: Items,
        masking: Masking,
        tokenizer: Tokenizer,
        *,
        row_length: int,
        batch_rows: int,
        seed: int,
        first_row: int = 0,
    ) -> None:
        """Start at a row.

        Args:
            items: documents, a mark at both ends.
            masking: hides tokens of the pairs.
            tokenizer: of the items; knows the marks.
            row_length: T, at least 5; longer documents are cut into stretches that fit.
            batch_rows: B.
            seed: of the order, the cuts, the foreign texts and what is hidden.
            first_row: rows read before.

        Raises:
            DataError: there are no two documents.
        """
        self._items, self._masking = items, masking
        self._row_length, self._batch_rows, self._seed, self._row = row_length, batch_rows, seed, first_row
        self._pad_id, self._mark = tokenizer.reserved.pad, tokenizer.reserved.end_of_text
        self._ends_V = np.array(
            [
                tokenizer.token_bytes(token).decode("utf-8", errors="replace").endswith(SENTENCE_ENDS)
                for token in range(tokenizer.vocab_size)
            ]
        )
        every = np.arange(len(items.lengths))
        self._item_M, self._start_M, self._length_M = cut_into_pieces(every, items.lengths, row_length - 3)
        if len(np.unique(self._item_M)) < 2:
            raise DataError("next-sentence prediction needs at least two documents; give more, or switch it off")
        self._epoch, self._order_M = -1, np.empty(0, dtype=np.int64)

    def __iter__(self) -> Iterator[MaskedBatch]:
        """Return itself."""
        return self

    def __next__(self) -> MaskedBatch:
        """Return the next batch."""
        shape = (self._batch_rows, self._row_length)
        hidden_BT = np.full(shape, self._pad_id, dtype=np.int64)
        targets_BT, chosen_BT = hidden_BT.copy(), np.zeros(shape, dtype=np.bool_)
        types_BT, segments_BT = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        unrelated_B = np.zeros(self._batch_rows, dtype=np.int64)
        for line in range(self._batch_rows):
            generator = numpy_generator(self._seed, "row", self._row)
            first, second, unrelated = self._draw_pair(generator)
            ids = self._masking.ids
            row = np.concatenate([[ids.cls], first, [ids.sep], second, [ids.sep]]).astype(np.int64)
            here = slice(0, len(row))
            targets_BT[line, here] = row
            hidden_BT[line, here], chosen_BT[line, here] = self._masking.hide(row, generator)
            types_BT[line, len(first) + 2 : len(row)] = 1
            segments_BT[line, here] = 1
            unrelated_B[line] = unrelated
            self._row += 1
        longest = int(segments_BT.sum(axis=1).max())
        positions_BT = np.tile(np.arange(self._row_length), (self._batch_rows, 1))
        return MaskedBatch(
            hidden_BT[:, :longest],
            segments_BT[:, :longest],
            positions_BT[:, :longest],
            types_BT[:, :longest],
            targets_BT[:, :longest],
            chosen_BT[:, :longest],
            unrelated_B,
        )

    @property
    def cursor(self) -> Cursor:
        """Where the next batch begins."""
        return Cursor(*divmod(self._row, len(self._item_M)))

    @property
    def epochs(self) -> float:
        """How often the documents were read."""
        return self._row / len(self._item_M)

    def _draw_pair(self, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
        """Return the row's two texts, and whether the second is from elsewhere."""
        piece = self._piece_of_row()
        tokens, cuts = self._stretch(piece)
        if not len(cuts):
            piece, tokens, cuts = self._draw_stretch(generator)
        cut = int(generator.choice(cuts))
        first, second = tokens[:cut], tokens[cut:]
        unrelated = bool(generator.random() < FOREIGN_SHARE)
        if unrelated:
            _, tokens, cuts = self._draw_stretch(generator, other_than=int(self._item_M[piece]))
            second = tokens[int(generator.choice(cuts)) :]
        return first, second[: self._row_length - 3 - len(first)], unrelated

    def _piece_of_row(self) -> int:
        epoch, place = divmod(self._row, len(self._item_M))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order_M = numpy_generator(self._seed, "epoch", epoch).permutation(len(self._item_M))
        return int(self._order_M[place])

    def _draw_stretch(
        self, generator: np.random.Generator, *, other_than: int | None = None
    ) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """Draw a stretch of two sentences or more; return its number, its tokens and where it may be cut."""
        for _ in range(MAX_TRIES):
            piece = int(generator.integers(len(self._item_M)))
            if self._item_M[piece] == other_than:
                continue
            tokens, cuts = self._stretch(piece)
            if len(cuts):
                return piece, tokens, cuts
        raise DataError(
            f"next-sentence prediction: none of {MAX_TRIES} stretches of documents holds two sentences; switch it off"
        )

    def _stretch(self, piece: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the tokens of a stretch without marks, and the places where a sentence begins after another."""
        start, length = int(self._start_M[piece]), int(self._length_M[piece])
        tokens = self._items.tokens(int(self._item_M[piece]), slice(start, start + length))
        tokens = tokens[tokens != self._mark]
        ends = self._ends_V[tokens]
        return tokens, np.flatnonzero(ends[:-1] & ~ends[1:]) + 1
