"""An interpolated n-gram model with modified Kneser-Ney smoothing: what counting alone knows of a text.

It reads the same tokens as the neural models, so that its bits per byte stand beside theirs, and shares no code with
them. A model that does not beat it has learned nothing but which words follow which.

    p_k(w | h) = (c(hw) - D(c(hw))) / c(h·)  +  γ(h) p_{k-1}(w | h'),      γ(h) = Σ_w D(c(hw)) / c(h·)

h' is h without its oldest token, p_0 is uniform, and c is the count at the highest order and below it the number of
different tokens that stand before hw (Chen and Goodman 1998, "An empirical study of smoothing techniques", section 3).
The discount D(c) is one of three numbers, for c = 1, c = 2 and more.

Each n-gram is one 64-bit integer, its tokens as digits to the base V, the oldest first: a prefix is a quotient, a
suffix a remainder, and tables are sorted arrays. Order 5 therefore needs V^5 <= 2^64, a vocabulary of at most 7,131;
a larger one gets a lower order.

Shapes: N tokens of a stream, G different n-grams, C different contexts, V vocabulary, U documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanbai.foundation.errors import DataError

Keys = NDArray[np.uint64]
Floats = NDArray[np.float64]

#: KenLM's, for texts too small to estimate discounts from (Heafield et al. 2013).
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class Table:
    """The n-grams of one order.

    Attributes:
        keys_G: sorted.
        counts_G: of each, as the order counts.
        contexts_C: sorted keys of what stands before the last token.
        totals_C: Σ_w c(hw).
        backoff_C: γ(h).
        discounts: D(0), D(1), D(2), D(3 and more); D(0) is 0.
    """

    keys_G: Keys
    counts_G: NDArray[np.uint32]
    contexts_C: Keys
    totals_C: Floats
    backoff_C: Floats
    discounts: Floats


@dataclass(frozen=True)
class NgramModel:
    """A fitted model; its tables go from single tokens to the full order."""

    vocab_size: int
    begin_id: int
    tables: tuple[Table, ...]

    @property
    def order(self) -> int:
        """Tokens of the longest n-gram."""
        return len(self.tables)

    def document_bits(self, documents: Sequence[Sequence[int]]) -> Floats:
        """Return -log2 p(document) in bits for each document of U; the mark that ends it is not paid for."""
        stream_N, is_text_N = lay_out(documents, begin_id=self.begin_id, order=self.order)
        bits_N = -np.log2(self._probabilities(stream_N, is_text_N))
        document_N = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
        return np.bincount(document_N, weights=bits_N, minlength=len(documents)).astype(np.float64)

    def distribution(self, context: Sequence[int]) -> Floats:
        """Return p(w | context) for every w of V; a short context is taken to begin a document."""
        padded = [self.begin_id] * (self.order - 1) + list(context)
        before = padded[len(padded) - (self.order - 1) :]
        rows = np.array([[*before, token] for token in range(self.vocab_size)], dtype=np.uint64)
        is_last_N = np.tile(np.arange(self.order) == self.order - 1, self.vocab_size)
        return self._probabilities(rows.ravel(), is_last_N)

    def _probabilities(self, stream_N: Keys, is_text_N: NDArray[np.bool_]) -> Floats:
        """Return p(token | the tokens before it) at the places of text."""
        probability = np.full(int(is_text_N.sum()), 1.0 / self.vocab_size)
        for order, table in enumerate(self.tables, start=1):
            keys = gram_keys(stream_N, is_text_N, order=order, vocab_size=self.vocab_size)
            place, known = _find(table.contexts_C, keys // np.uint64(self.vocab_size))
            total = np.where(known, table.totals_C[place], 1.0)
            backoff = np.where(known, table.backoff_C[place], 1.0)
            gram, seen = _find(table.keys_G, keys)
            count = np.where(seen, table.counts_G[gram], 0)
            probability = (count - table.discounts[np.minimum(count, 3)]) / total + backoff * probability
        return probability


def fit_ngram(
    documents: Iterable[Sequence[int] | NDArray[np.int64]],
    *,
    vocab_size: int,
    begin_id: int,
    order: int = 5,
    on_order: Callable[[], None] = lambda: None,
) -> NgramModel:
    """Count and smooth.

    A million tokens take half a second and 60 MB.

    Args:
        documents: token ids of each text, without marks.
        vocab_size: V; every id is below it.
        begin_id: the mark that stands before a document; n-grams never run from one document into the next.
        order: the longest n-gram wanted; shortened where V needs it.
        on_order: called before each order is counted; may raise to stop.

    Raises:
        DataError: there is no token.
    """
    order = min(order, longest_order(vocab_size))
    stream_N, is_text_N = lay_out(documents, begin_id=begin_id, order=order)
    if not is_text_N.any():
        raise DataError("no token to count; give the corpus some text")
    keys = gram_keys(stream_N, is_text_N, order=order, vocab_size=vocab_size)
    del stream_N, is_text_N
    tables: list[Table] = []
    for size in range(order, 0, -1):
        on_order()
        keys_G, counts_G = _count(keys)
        tables.append(_smooth(keys_G, counts_G, vocab_size))
        keys = keys_G % np.uint64(vocab_size ** (size - 1))  # each different n-gram counts once for its suffix
    return NgramModel(vocab_size, begin_id, tuple(reversed(tables)))


def longest_order(vocab_size: int) -> int:
    """Return the largest n with V^n <= 2^64."""
    order = 1
    while vocab_size ** (order + 1) <= 2**64:
        order += 1
    return order


def lay_out(
    documents: Iterable[Sequence[int] | NDArray[np.int64]], *, begin_id: int, order: int
) -> tuple[Keys, NDArray[np.bool_]]:
    """Return all documents in a row, `order - 1` marks before each, and which places hold text."""
    marks = np.full(order - 1, begin_id, dtype=np.uint64)
    parts: list[Keys] = []
    lengths: list[int] = []
    for document in documents:
        text = np.asarray(document, dtype=np.uint64)
        parts += [marks, text]
        lengths += [len(marks), len(text)]
    stream_N = np.concatenate([np.empty(0, dtype=np.uint64), *parts])
    return stream_N, np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def gram_keys(stream_N: Keys, is_text_N: NDArray[np.bool_], *, order: int, vocab_size: int) -> Keys:
    """Return the key of the n-gram that ends at each place of text; marks before a document are part of it."""
    base = np.uint64(vocab_size)
    num_ends = len(stream_N) - order + 1
    keys = np.zeros(max(num_ends, 0), dtype=np.uint64)
    for offset in range(order):
        keys *= base
        keys += stream_N[offset : offset + num_ends]
    return keys[is_text_N[order - 1 :]]


def modified_discounts(counts_G: NDArray[np.uint32]) -> Floats:
    """Return D(0) = 0, D(1), D(2), D(3 and more), estimated from how many n-grams occur 1, 2, 3 and 4 times.

    Y = n1 / (n1 + 2 n2),  D(k) = k - (k + 1) Y n_{k+1} / n_k  (Chen and Goodman 1998, equation 26). Where a number is 0
    or a discount would leave [0, k], `FALLBACK_DISCOUNTS` are taken.
    """
    n1, n2, n3, n4 = (int((counts_G == count).sum()) for count in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 <= discount <= count for count, discount in enumerate(found, start=1)):
            return np.array([0.0, *found])
    return np.array([0.0, *FALLBACK_DISCOUNTS])


def _smooth(keys_G: Keys, counts_G: NDArray[np.uint32], vocab_size: int) -> Table:
    context_G = keys_G // np.uint64(vocab_size)
    first_C = np.flatnonzero(np.concatenate([[True], context_G[1:] != context_G[:-1]]))
    discounts = modified_discounts(counts_G)
    totals_C = np.add.reduceat(counts_G, first_C, dtype=np.float64)
    taken_C = np.add.reduceat(discounts[np.minimum(counts_G, 3)], first_C)
    return Table(keys_G, counts_G, context_G[first_C], totals_C, taken_C / totals_C, discounts)


def _count(keys: Keys) -> tuple[Keys, NDArray[np.uint32]]:
    """Return the different keys, sorted, and how often each occurs; sorts the argument in place."""
    keys.sort()
    first_G = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[first_G], np.diff(first_G, append=len(keys)).astype(np.uint32)


def _find(sorted_G: Keys, wanted_N: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the place of each wanted key, and whether it is there at all."""
    place_N = np.minimum(np.searchsorted(sorted_G, wanted_N), len(sorted_G) - 1)
    return place_N, sorted_G[place_N] == wanted_N
