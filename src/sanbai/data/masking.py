"""Masked language modelling: some tokens of a text are hidden, and learned from both sides.

BERT's rule (Devlin et al. 2018, arXiv:1810.04805, section 3.1): 15 % of the tokens are chosen; of these 80 % become the
mask, 10 % a random token, 10 % stay as they are. ERNIE (Sun et al. 2019, arXiv:1904.09223) chooses whole names and
phrases: a span is chosen, hidden and kept as one.

Shapes: B rows, T positions, N positions of one row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanbai.data.packing import PackedBatch
from sanbai.foundation.errors import DataError
from sanbai.text.tokenizer import Tokenizer

MASK_SHARE = 0.15
"""Of the tokens, chosen to be learned, as a rule."""
HIDDEN_SHARE, RANDOM_SHARE = 0.8, 0.1
"""Of the chosen spans, those that become the mask and those that become random tokens; the rest stays."""

Span = tuple[int, int]
"""First position, and the one after the last."""
FindSpans = Callable[[NDArray[np.int64]], Sequence[Span]]
"""Token ids of one row -> spans that are one thing; in order, none overlapping."""


@dataclass(frozen=True, slots=True)
class MaskedBatch:
    """Rows with hidden tokens.

    Attributes:
        tokens_BT: int64 ids as the model reads them.
        segments_BT: int64, 1, 2, ... for the texts of a row, 0 on padding; attention stays within one.
        positions_BT: int64, from 0 in each segment.
        types_BT: int64, 0 in a first text, 1 in a second one.
        targets_BT: int64, the ids before anything was hidden.
        loss_mask_BT: bool, whether the token *at this place* is to be learned.
        unrelated_B: int64, 0 where the second text follows the first, 1 where it is from elsewhere; None where rows are
            no pairs.
    """

    tokens_BT: NDArray[np.int64]
    segments_BT: NDArray[np.int64]
    positions_BT: NDArray[np.int64]
    types_BT: NDArray[np.int64]
    targets_BT: NDArray[np.int64]
    loss_mask_BT: NDArray[np.bool_]
    unrelated_B: NDArray[np.int64] | None = None

    def rows(self, part: slice) -> MaskedBatch:
        """Return some of the rows."""
        return MaskedBatch(
            self.tokens_BT[part],
            self.segments_BT[part],
            self.positions_BT[part],
            self.types_BT[part],
            self.targets_BT[part],
            self.loss_mask_BT[part],
            None if self.unrelated_B is None else self.unrelated_B[part],
        )


class Masking:
    """Hides tokens of rows; what is hidden follows from the generator alone."""

    def __init__(self, tokenizer: Tokenizer, find_spans: FindSpans | None = None, *, share: float = MASK_SHARE) -> None:
        """Take the ids of a vocabulary.

        Args:
            tokenizer: reserved ids are never chosen, nor put in at random.
            find_spans: finds what is masked whole; by default every token stands for itself.
            share: of the tokens, chosen to be learned, in (0, 1).

        Raises:
            UsageError: the tokenizer has no mask.
        """
        self.ids = tokenizer.reading
        self.share = share
        self._ordinary_V = np.ones(tokenizer.vocab_size, dtype=np.bool_)
        self._ordinary_V[sorted(tokenizer.reserved_ids)] = False
        self._ordinary = np.flatnonzero(self._ordinary_V)
        self._find_spans = find_spans

    def hide(
        self, tokens_N: NDArray[np.int64], generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return a row as the model reads it, and which of its tokens were chosen.

        `round(share n)` of the n tokens that are not reserved, at least one; a span that would exceed this is passed
        over. Each span is hidden, made random or kept as one, whatever the others are.
        """
        spans = self._spans(tokens_N)
        wanted = max(1, round(self.share * sum(stop - start for start, stop in spans)))
        hidden_N, chosen_N = tokens_N.copy(), np.zeros(len(tokens_N), dtype=np.bool_)
        fate_S = generator.random(len(spans))
        num_chosen = 0
        for place in generator.permutation(len(spans)).tolist():
            start, stop = spans[place]
            if num_chosen + stop - start > wanted:
                continue
            num_chosen += stop - start
            chosen_N[start:stop] = True
            if fate_S[place] < HIDDEN_SHARE:
                hidden_N[start:stop] = self.ids.mask
            elif fate_S[place] < HIDDEN_SHARE + RANDOM_SHARE:
                hidden_N[start:stop] = generator.choice(self._ordinary, size=stop - start)
            if num_chosen == wanted:
                break
        return hidden_N, chosen_N

    def _spans(self, tokens_N: NDArray[np.int64]) -> list[Span]:
        ordinary_N = self._ordinary_V[tokens_N]
        spans: list[Span] = []
        for start, stop in self._find_spans(tokens_N) if self._find_spans else ():
            if ordinary_N[start:stop].all():
                spans.append((start, stop))
                ordinary_N[start:stop] = False
        return spans + [(place, place + 1) for place in np.flatnonzero(ordinary_N).tolist()]


def mask_rows(
    batch: PackedBatch, masking: Masking, *, end_of_text: int, generators: Sequence[np.random.Generator]
) -> MaskedBatch:
    """Hide tokens of packed documents; the mark before a document becomes `cls`, the one behind it `sep`.

    Args:
        batch: rows of documents.
        masking: what hides.
        end_of_text: the mark around documents.
        generators: one a row.
    """
    targets_BT = batch.tokens_BT.copy()
    is_mark_BT = targets_BT == end_of_text
    targets_BT[is_mark_BT] = np.where(batch.positions_BT == 0, masking.ids.cls, masking.ids.sep)[is_mark_BT]
    rows = [masking.hide(row, generator) for row, generator in zip(targets_BT, generators, strict=True)]
    return MaskedBatch(
        tokens_BT=np.stack([hidden for hidden, _ in rows]),
        segments_BT=batch.segments_BT,
        positions_BT=batch.positions_BT,
        types_BT=np.zeros_like(batch.tokens_BT),
        targets_BT=targets_BT,
        loss_mask_BT=np.stack([chosen for _, chosen in rows]),
    )


def name_finder(tokenizer: Tokenizer, names: Collection[str]) -> FindSpans:
    """Return a function that finds names and phrases in token ids: all tokens that hold a part of one.

    Names are found in the text that the ids spell, the longest first, at the borders of words where a name begins or
    ends with a letter; so it does not matter how a name is cut into tokens.

    Args:
        tokenizer: of the ids.
        names: at least one, none empty.

    Raises:
        DataError: there is none.
    """
    if not names or not all(names):
        raise DataError("no names to mask whole; entity masking wants at least one, and none empty")
    longest_first = sorted(set(names), key=lambda name: (-len(name), name))
    pattern = re.compile(b"|".join(rb"(?<!\w)" + re.escape(name.encode()) + rb"(?!\w)" for name in longest_first))

    def find(tokens_N: NDArray[np.int64]) -> list[Span]:
        pieces = [tokenizer.token_bytes(token) for token in tokens_N.tolist()]
        ends_N = np.cumsum([len(piece) for piece in pieces])
        found: list[Span] = []
        for match in pattern.finditer(b"".join(pieces)):
            start = int(np.searchsorted(ends_N, match.start(), side="right"))
            stop = int(np.searchsorted(ends_N, match.end(), side="left")) + 1
            if not found or start >= found[-1][1]:
                found.append((start, stop))
        return found

    return find
