"""Words and runs of words as 64-bit hashes, for many documents at once.

Hashing a word a time in Python would cost more than everything else that is done with it; here a megabyte of text is
a handful of numpy passes. The constants are fixed, so hashes are the same on every machine.

Shapes: L bytes, W words, D documents, N runs of words.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]

#: Texts hashed at once, in characters: large enough for numpy, small enough for the processor's cache.
BATCH_CHARACTERS = 1 << 16

_SPACE = 0x20
_WORD_BASE = np.uint64(0x9E3779B97F4A7C15)
_RUN_BASE = np.uint64(0xD6E8FEB86659FD93)


def mix(values: Hashes) -> Hashes:
    """Return splitmix64's finaliser of each value: every input bit reaches every output bit (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def fixed_constants(name: int, count: int) -> Hashes:
    """Return `count` fixed random-looking 64-bit numbers; another name gives others."""
    return mix((np.arange(1, count + 1, dtype=np.uint64) + np.uint64(name << 32)) * _WORD_BASE)


_BYTE_CODES = fixed_constants(1, 256)
_BYTE_CODES[: _SPACE + 1] = 0


@functools.lru_cache(maxsize=2)
def _word_powers(length: int) -> tuple[Hashes, Hashes]:
    """Return B^0, B^1, ..., and their inverses modulo 2^64; B is odd, so it has one."""
    inverse = np.uint64(pow(int(_WORD_BASE), -1, 1 << 64))
    return _powers(_WORD_BASE, length), _powers(inverse, length)


def _powers(base: np.uint64, length: int) -> Hashes:
    factors = np.full(length, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class WordTable:
    """The words of D documents in a row.

    Attributes:
        hashes_W: 64-bit hash of each word.
        sizes_W: bytes of each word in UTF-8.
        document_W: the document that each word belongs to.
        bounds: (D + 1): document d has the words `bounds[d]` to `bounds[d + 1]`.
    """

    hashes_W: Hashes
    sizes_W: Indices
    document_W: Indices
    bounds: Indices

    @property
    def num_documents(self) -> int:
        """D."""
        return len(self.bounds) - 1

    def runs(self, length: int) -> tuple[Hashes, Indices]:
        """Return hash and first word of every run of `length` words within one document."""
        num_starts = len(self.hashes_W) - length + 1
        if num_starts <= 0:
            return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
        total = self.hashes_W[:num_starts].copy()
        for offset in range(1, length):
            total *= _RUN_BASE
            total += self.hashes_W[offset : offset + num_starts]
        start_N = np.flatnonzero(self.document_W[:num_starts] == self.document_W[length - 1 :])
        return mix(total[start_N]), start_N


def hash_words(fingerprints: Sequence[str]) -> WordTable:
    """Return the words of fingerprints: what stands between single spaces."""
    encoded = [text.encode() for text in fingerprints]
    text_L = np.frombuffer(b" ".join([*encoded, b""]), dtype=np.uint8)
    is_word_L = text_L > _SPACE
    starts_W = np.flatnonzero(is_word_L & ~np.concatenate([[False], is_word_L[:-1]]))
    ends_W = np.flatnonzero(~is_word_L & np.concatenate([[False], is_word_L[:-1]]))
    document_ends = np.cumsum([len(text) + 1 for text in encoded]) if encoded else np.empty(0, dtype=np.int64)
    bounds = np.concatenate([[0], np.searchsorted(starts_W, document_ends)]).astype(np.int64)
    document_W = np.repeat(np.arange(len(encoded)), np.diff(bounds))
    if len(starts_W) == 0:
        return WordTable(np.empty(0, dtype=np.uint64), starts_W, document_W, bounds)
    powers_L, inverse_L = _word_powers(1 << len(text_L).bit_length())
    code_L = _BYTE_CODES[text_L] * powers_L[: len(text_L)]
    # sum over the word of code(byte) B^(place in the batch), divided by B^(place of the word): the place drops out
    hashes_W = mix(np.add.reduceat(code_L, starts_W) * inverse_L[starts_W])
    return WordTable(hashes_W, ends_W - starts_W, document_W, bounds)


def batch_texts(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield (index of the first, texts) in batches of about `BATCH_CHARACTERS`."""
    first, size = 0, 0
    for index, text in enumerate(texts):
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield first, texts[first : index + 1]
            first, size = index + 1, 0
    if first < len(texts):
        yield first, texts[first:]
