"""Texts whose characters follow no language: measured against the other documents, not against a list of words.

A character-pair model of all documents of a script gives each document its surprise in bits a character; gibberish
stands far above the median. A document's own pairs are taken out of the counts before it is measured, so that it cannot
vouch for itself. No language is built in: villages, Chinese and sums are each ordinary where they are many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sanbai.data.words import mix

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
    for text in texts:
        firsts, seconds, pairs = _characters(text)
        np.add.at(pair_counts, pairs, 1.0)
        np.add.at(single_counts, seconds, 1.0)
    total = single_counts.sum()
    result = np.zeros(len(texts))
    for index, text in enumerate(texts):
        firsts, seconds, pairs = _characters(text)
        if len(pairs) == 0:
            continue
        pair_N = pair_counts[pairs] - _own_counts(pairs)
        second_N = single_counts[seconds] - _own_counts(seconds)
        first_N = single_counts[firsts] - _counts_within(firsts, seconds)
        single = (second_N + 1.0) / (total - len(pairs) + _NUM_SINGLES)
        probability = (pair_N + _PRIOR * single) / (np.maximum(first_N, pair_N) + _PRIOR)
        result[index] = -np.log2(probability).mean()
    return result


def _characters(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the hashed first and second characters of each pair, and the hashed pairs; a newline comes before all."""
    codes = np.frombuffer(("\n" + text.lower()).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    pairs = mix((codes[:-1] << np.uint64(21)) ^ codes[1:]) & np.uint64(_NUM_PAIRS - 1)
    singles = (codes & np.uint64(_NUM_SINGLES - 1)).astype(np.int64)
    return singles[:-1], singles[1:], pairs.astype(np.int64)


def _own_counts(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how often each value occurs among them."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[inverse].astype(np.float64)


def _counts_within(values: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how often each value occurs among the others."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "right") - np.searchsorted(ordered, values, "left")).astype(np.float64)
