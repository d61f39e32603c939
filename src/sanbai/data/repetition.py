"""Texts that say the same thing over and over (Gopher, Rae et al. 2021, arXiv:2112.11446, appendix A.1.1).

Departures, each where copies of the rules disagree: only copies after the first are counted as duplicates; letters are
bytes of words in lower case without punctuation; and a run must occur twice before it can be the top one.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from sanbai.data.words import Indices, WordTable, mix

Shares = NDArray[np.float64]

_PARAGRAPH_BREAK = re.compile(r"\n{2,}")


def duplicate_line_shares(text: str) -> tuple[float, float]:
    """Return the share of lines that repeat an earlier line, and of their characters; blank lines do not count."""
    return _duplicate_shares([line.strip() for line in text.split("\n")])


def duplicate_paragraph_shares(text: str) -> tuple[float, float]:
    """Return the share of paragraphs that repeat an earlier one, and of their characters."""
    return _duplicate_shares([paragraph.strip() for paragraph in _PARAGRAPH_BREAK.split(text)])


def _duplicate_shares(units: list[str]) -> tuple[float, float]:
    units = [unit for unit in units if unit]
    distinct = set(units)
    if len(distinct) == len(units):
        return 0.0, 0.0
    total = sum(map(len, units))
    return 1 - len(distinct) / len(units), 1 - sum(map(len, distinct)) / total


def top_run_shares(words: WordTable, length: int) -> Shares:
    """Return, a document, the share of letters taken up by the run of `length` words that takes up most.

    A run of c > 1 occurrences with s letters takes up min(1, c s / letters).
    """
    start_R, kind_R = _repeated_runs(words, length)
    shares = np.zeros(words.num_documents)
    if len(start_R):
        firsts = np.flatnonzero(np.diff(kind_R, prepend=-1))
        taken = np.diff(firsts, append=len(kind_R)) * _run_sizes(words, length, start_R[firsts])
        np.maximum.at(shares, words.document_W[start_R[firsts]], taken)
    return np.minimum(shares / _letters(words), 1.0)


def duplicate_run_shares(words: WordTable, length: int) -> Shares:
    """Return, a document, the share of letters in words covered by runs that repeat an earlier run; each word once."""
    start_R, kind_R = _repeated_runs(words, length)
    copies = start_R[np.diff(kind_R, prepend=-1) == 0]
    change = np.zeros(len(words.hashes_W) + 1, dtype=np.int64)
    np.add.at(change, copies, 1)
    np.add.at(change, copies + length, -1)
    covered_W = np.cumsum(change[:-1]) > 0
    covered = np.bincount(words.document_W, weights=words.sizes_W * covered_W, minlength=words.num_documents)
    return covered / _letters(words)


def _repeated_runs(words: WordTable, length: int) -> tuple[Indices, Indices]:
    """Return the first word, and the kind, of each of R runs that occur more than once in their document.

    Runs of a kind stand together, in the order of the text; kinds are numbered from 0.
    """
    hash_N, start_N = words.runs(length)
    key_N = mix(hash_N + words.document_W[start_N].astype(np.uint64))
    order = np.argsort(key_N)
    same_as_last = np.diff(key_N[order], prepend=~key_N[order][:1]) == 0
    repeated = same_as_last | np.append(same_as_last[1:], False)[: len(order)]
    kind_R = np.cumsum(~same_as_last)[repeated]
    start_R = start_N[order[repeated]]
    in_order = np.lexsort((start_R, kind_R))
    kinds = np.unique(kind_R, return_inverse=True)[1]
    return start_R[in_order], kinds[in_order]


def _run_sizes(words: WordTable, length: int, starts: Indices) -> Indices:
    total = np.concatenate([[0], np.cumsum(words.sizes_W)])
    sizes: Indices = total[starts + length] - total[starts]
    return sizes


def _letters(words: WordTable) -> Shares:
    letters = np.bincount(words.document_W, weights=words.sizes_W, minlength=words.num_documents)
    return np.maximum(letters, 1.0)
