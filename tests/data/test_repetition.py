from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanbai.data.repetition import (
    duplicate_line_shares,
    duplicate_paragraph_shares,
    duplicate_run_shares,
    top_run_shares,
)
from sanbai.data.words import hash_words

DOCUMENTS = st.lists(st.lists(st.sampled_from(["a", "bb", "ccc", "村"]), max_size=14).map(" ".join), max_size=5)


def plain_top_share(words: list[str], length: int) -> float:
    counts = Counter(tuple(words[i : i + length]) for i in range(len(words) - length + 1))
    taken = [count * sum(len(word.encode()) for word in run) for run, count in counts.items() if count > 1]
    return min(1.0, max(taken, default=0) / max(1, sum(len(word.encode()) for word in words)))


def plain_duplicate_share(words: list[str], length: int) -> float:
    seen: set[tuple[str, ...]] = set()
    covered = [False] * len(words)
    for i in range(len(words) - length + 1):
        run = tuple(words[i : i + length])
        if run in seen:
            covered[i : i + length] = [True] * length
        seen.add(run)
    sizes = [len(word.encode()) for word in words]
    return sum(size for size, c in zip(sizes, covered, strict=True) if c) / max(1, sum(sizes))


@given(DOCUMENTS, st.integers(2, 5))
def test_shares_are_those_of_a_plain_loop(documents: list[str], length: int) -> None:
    table = hash_words(documents)
    words = [document.split() for document in documents]
    assert top_run_shares(table, length).tolist() == pytest.approx([plain_top_share(w, length) for w in words])
    assert duplicate_run_shares(table, length).tolist() == pytest.approx(
        [plain_duplicate_share(w, length) for w in words]
    )


def test_hand_counted_runs() -> None:
    # "ab cd" stands twice: 2 x 4 of 14 letters; its second copy covers 4 of 14.
    table = hash_words(["ab cd ef ab cd gh ij"])
    assert top_run_shares(table, 2).tolist() == [pytest.approx(8 / 14)]
    assert duplicate_run_shares(table, 2).tolist() == [pytest.approx(4 / 14)]
    assert top_run_shares(table, 3).tolist() == [0.0]


def test_hand_counted_lines_and_paragraphs() -> None:
    assert duplicate_line_shares("aa\nbb\n\naa\nc") == (pytest.approx(1 / 4), pytest.approx(2 / 7))
    assert duplicate_paragraph_shares("aa\nbb\n\naa\nc\n\n\naa\nbb") == (pytest.approx(1 / 3), pytest.approx(5 / 14))
    assert duplicate_line_shares("") == (0.0, 0.0)
