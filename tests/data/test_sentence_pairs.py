from __future__ import annotations

import numpy as np
import pytest

from sanbai.data.masking import MaskedBatch, Masking
from sanbai.data.packing import EncodedItems
from sanbai.data.sentence_pairs import SentencePairs
from sanbai.foundation.errors import DataError
from sanbai.text.chat_template import EncodedConversation
from sanbai.text.reserved import READING_MARKERS
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

DOCUMENTS = [f"One is {n}a. Two is {n}b. Three is {n}c." for n in range(12)] + ["No second sentence"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(DOCUMENTS * 5, vocab_size=320, extra_markers=tuple(READING_MARKERS.values()))


def encoded(tokenizer: Tokenizer, documents: list[str]) -> EncodedItems:
    mark = tokenizer.reserved.end_of_text
    rows = [[mark, *tokenizer.encode(text), mark] for text in documents]
    return EncodedItems([EncodedConversation(row, [1] * len(row)) for row in rows])


def pairs(tokenizer: Tokenizer, *, batch_rows: int = 4, first_row: int = 0, seed: int = 1) -> SentencePairs:
    return SentencePairs(
        encoded(tokenizer, DOCUMENTS),
        Masking(tokenizer),
        tokenizer,
        row_length=48,
        batch_rows=batch_rows,
        seed=seed,
        first_row=first_row,
    )


def texts(tokenizer: Tokenizer, batch: MaskedBatch, line: int) -> tuple[str, str]:
    row, types = batch.targets_BT[line], batch.types_BT[line]
    real = batch.segments_BT[line] != 0
    ids = tokenizer.reading
    assert row[0] == ids.cls
    assert (row[real] == ids.sep).sum() == 2
    assert row[real][-1] == ids.sep
    return tuple(tokenizer.decode(row[real & (types == kind)]).strip() for kind in (0, 1))  # type: ignore[return-value]


def test_a_pair_follows_in_its_document_exactly_where_it_says_so(tokenizer: Tokenizer) -> None:
    source = pairs(tokenizer, batch_rows=200)
    batch = next(source)
    assert batch.unrelated_B is not None
    for line, unrelated in enumerate(batch.unrelated_B):
        first, second = texts(tokenizer, batch, line)
        assert first.endswith(".")
        assert second[:3] in {"Two", "Thr"}, "a second text begins with a sentence, and never with a first one"
        joined = f"{first} {second}"
        in_one = any(joined in document for document in DOCUMENTS)
        assert in_one is not bool(unrelated), joined
    assert 200 * 0.5 - 4 * 7.07 < batch.unrelated_B.sum() < 200 * 0.5 + 4 * 7.07


def test_a_row_depends_on_its_number_and_not_on_the_batches(tokenizer: Tokenizer) -> None:
    whole = next(pairs(tokenizer, batch_rows=12))
    late = pairs(tokenizer, batch_rows=3, first_row=6)
    for start in (6, 9):
        batch = next(late)
        for line in range(3):
            real = int(whole.segments_BT[start + line].sum())
            np.testing.assert_array_equal(batch.tokens_BT[line, :real], whole.tokens_BT[start + line, :real])
            assert batch.unrelated_B is not None
            assert whole.unrelated_B is not None
            assert batch.unrelated_B[line] == whole.unrelated_B[start + line]
    assert (next(pairs(tokenizer, seed=2)).tokens_BT[:, :20] != whole.tokens_BT[:4, :20]).any()


def test_a_text_alone_does_not_tell_whether_it_was_exchanged(tokenizer: Tokenizer) -> None:
    batch = next(pairs(tokenizer, batch_rows=3000))
    assert batch.unrelated_B is not None
    openings = {False: [0, 0], True: [0, 0]}
    for line, unrelated in enumerate(batch.unrelated_B):
        _, second = texts(tokenizer, batch, line)
        openings[bool(unrelated)][second.startswith("Two")] += 1
    shares = {kind: two / (two + three) for kind, (three, two) in openings.items()}
    assert abs(shares[False] - shares[True]) < 4 * (0.25 / 1500 * 2) ** 0.5


def test_documents_that_cannot_be_paired_are_said(tokenizer: Tokenizer) -> None:
    def start(documents: list[str]) -> SentencePairs:
        items = encoded(tokenizer, documents)
        return SentencePairs(items, Masking(tokenizer), tokenizer, row_length=48, batch_rows=2, seed=1)

    with pytest.raises(DataError, match="at least two documents"):
        start(["One is 1. Two is 2."])
    with pytest.raises(DataError, match="holds two sentences"):
        next(start(["No end", "nor here"]))
