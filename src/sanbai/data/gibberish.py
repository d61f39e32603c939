"""Texts whose characters follow no language: measured against the other documents, not against a list of words.

A character-pair model of all documents of a script gives each document its surprise in bits a character; gibberish
stands far above the median. A document's own pairs are taken out of the counts before it is measured, so that it cannot
vouch for itself. No language is built in: villages, Chinese and sums are each ordinary where they are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanbai.data.words import batch_texts, mix

_NUM_PAIRS = 1 << 20
_NUM_SINGLES = 1 << 16

#: Weight of the single-character model, in pairs.
_PRIOR = 5.0


def surprises(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return bits a character of each text under the pair counts of all the others.

    -1/n sum_i log2 p(c_i | c_{i-1}),  p = (N(c_{i-1} c_i) + w p1(c_i)) / (N(c_{i-1}) + w),  w = 5,
    p1(c) = (N(c) + 1) / (N + 2^16); letters in lower case, pairs hashed to 20 bits.
    """
    pair_counts = np.zeros(_NUM_PAIRS)
    single_counts = np.zeros(_NUM_SINGLES)
    for _, some in batch_texts(texts):
        batch = _hash_characters(some)
        np.add.at(pair_counts, batch.pairs_N, 1.0)
        np.add.at(single_counts, batch.seconds_N, 1.0)
    total = single_counts.sum()
    means = []
    for _, some in batch_texts(texts):  # hashed again: kept, the hashes would take thirty times the texts' space
        batch = _hash_characters(some)
        lengths = np.bincount(batch.text_N, minlength=batch.num_texts)
        own_second_N = _own_counts(batch.text_N, batch.seconds_N)
        own_first_N = np.roll(own_second_N, 1)  # a pair's first character is the last pair's second ...
        starts = (np.cumsum(lengths) - lengths)[lengths > 0]  # ... but for the newline before a text
        newline_N = batch.seconds_N == ord("\n")
        newlines = np.bincount(batch.text_N, weights=newline_N, minlength=batch.num_texts)
        own_first_N[starts] = newlines[lengths > 0]
        pair_N = pair_counts[batch.pairs_N] - _own_counts(batch.text_N, batch.pairs_N)
        second_N = single_counts[batch.seconds_N] - own_second_N
        first_N = single_counts[batch.firsts_N] - own_first_N
        own_N = lengths[batch.text_N]
        single_N = (second_N + 1.0) / (total - own_N + _NUM_SINGLES)
        bits_N = -np.log2((pair_N + _PRIOR * single_N) / (np.maximum(first_N, pair_N) + _PRIOR))
        sums = np.bincount(batch.text_N, weights=bits_N, minlength=batch.num_texts)
        means.append(sums / np.maximum(lengths, 1))
    return np.concatenate(means) if means else np.empty(0)


@dataclass(frozen=True, slots=True)
class _Characters:
    """The N character pairs of some texts, hashed: first, second, both, and the text that each pair belongs to."""

    firsts_N: NDArray[np.int64]
    seconds_N: NDArray[np.int64]
    pairs_N: NDArray[np.int64]
    text_N: NDArray[np.int64]
    num_texts: int


def _hash_characters(texts: Sequence[str]) -> _Characters:
    """Return the pairs of each text in lower case, a newline before its first character."""
    lowered = ["\n" + text.lower() for text in texts]
    codes = np.frombuffer("".join(lowered).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in lowered])
    is_second = np.ones(len(codes), dtype=np.bool_)
    is_second[np.cumsum(lengths) - lengths] = False
    seconds = np.flatnonzero(is_second)
    pairs = mix((codes[seconds - 1] << np.uint64(21)) ^ codes[seconds]) & np.uint64(_NUM_PAIRS - 1)
    singles = (codes & np.uint64(_NUM_SINGLES - 1)).astype(np.int64)
    text_N = np.repeat(np.arange(len(texts)), lengths - 1)
    return _Characters(singles[seconds - 1], singles[seconds], pairs.astype(np.int64), text_N, len(texts))


def _own_counts(text_N: NDArray[np.int64], values_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each value occurs in its text."""
    keys = text_N * _NUM_PAIRS + values_N
    order = np.argsort(keys)
    edges = np.flatnonzero(np.diff(keys[order], prepend=-1))
    sizes = np.diff(edges, append=len(keys))
    counts_N = np.empty(len(keys), dtype=np.int64)
    counts_N[order] = np.repeat(sizes, sizes)
    return counts_N
