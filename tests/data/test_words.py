from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sanbai.data.words import batch_texts, fixed_constants, hash_words, mix

WORDS = st.lists(st.sampled_from(["a", "b", "ab", "ba", "村", "x1", "long" * 9]), max_size=8)
DOCUMENTS = st.lists(WORDS.map(" ".join), max_size=6)


@given(DOCUMENTS)
def test_equal_words_have_equal_hashes_and_different_ones_differ(documents: list[str]) -> None:
    table = hash_words(documents)
    words = [word for document in documents for word in document.split()]
    assert len(table.hashes_W) == len(words)
    assert len(set(table.hashes_W.tolist())) == len(set(words))
    assert len(set(zip(words, table.hashes_W.tolist(), strict=True))) == len(set(words))
    assert table.sizes_W.tolist() == [len(word.encode()) for word in words]
    assert np.diff(table.bounds).tolist() == [len(document.split()) for document in documents]


@given(DOCUMENTS, st.integers(1, 4))
def test_runs_are_those_of_a_plain_loop(documents: list[str], length: int) -> None:
    table = hash_words(documents)
    hashes, starts = table.runs(length)
    expected = []
    first = 0
    for document in documents:
        words = document.split()
        expected += [(first + i, tuple(words[i : i + length])) for i in range(len(words) - length + 1)]
        first += len(words)
    assert starts.tolist() == [start for start, _ in expected]
    assert len(set(zip(hashes.tolist(), (run for _, run in expected), strict=True))) == len(
        {run for _, run in expected}
    )
    assert len(set(hashes.tolist())) == len({run for _, run in expected})


def test_a_hash_does_not_depend_on_the_place_of_its_word() -> None:
    long = " ".join(["filler"] * 5000)
    assert hash_words([long + " anna"]).hashes_W[-1] == hash_words(["anna"]).hashes_W[0]


def test_the_order_of_words_in_a_run_matters() -> None:
    table = hash_words(["a b", "b a"])
    assert len(set(table.runs(2)[0].tolist())) == 2


def test_mixing_is_splitmix64() -> None:
    """The first outputs of splitmix64 seeded with 1234567, from the reference C program."""
    state, outputs = 1234567, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        outputs.append(int(mix(np.array([state], dtype=np.uint64))[0]))
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_constants_are_fixed_and_differ_by_name() -> None:
    assert fixed_constants(1, 4).tolist() == fixed_constants(1, 8)[:4].tolist()
    assert not set(fixed_constants(1, 100).tolist()) & set(fixed_constants(2, 100).tolist())


def test_batches_hold_every_document_once_in_order() -> None:
    documents = ["x" * (n % 7 * 9000) for n in range(50)]
    seen = [(first + offset, text) for first, batch in batch_texts(documents) for offset, text in enumerate(batch)]
    assert seen == list(enumerate(documents))
