"""Readers side by side: the same bytes for all, and figures by source that add up."""

from __future__ import annotations

import lzma
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.evaluation.conftest import LINES

from sanbai.data.shards import ShardReader
from sanbai.evaluation.compression import Compression
from sanbai.evaluation.language import HeldOutDocument, document_bits
from sanbai.evaluation.readers import HeldOutText, excerpts, model_bits, ngram_bits, reading_record, text_bytes, xz_bits
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer

TEXTS = ["水车在村子的东边。 The cow gave milk.", "", "Apples: 50 apples, not 5.", "The baker likes painting."]


class Split:
    """The documents of a split in memory, marks around each, as `ShardReader` gives them."""

    def __init__(self, tokenizer: Tokenizer, texts: list[str]) -> None:
        mark = tokenizer.reserved.end_of_text
        self._documents = [np.array([mark, *tokenizer.encode(text), mark]) for text in texts]
        self.vocab_size = tokenizer.vocab_size

    def __len__(self) -> int:
        return len(self._documents)

    def tokens(self, index: int) -> NDArray[np.int64]:
        return self._documents[index]


def split_of(tokenizer: Tokenizer, texts: list[str]) -> ShardReader:
    return cast("ShardReader", Split(tokenizer, texts))


def held_out(tokenizer: Tokenizer) -> HeldOutText:
    documents = [HeldOutDocument(tokenizer.encode(text), len(text.encode())) for text in TEXTS if text]
    return HeldOutText(documents, ["a", "b", "a"])


def test_an_excerpt_pays_for_the_bytes_of_its_tokens_even_within_a_character(tokenizer: Tokenizer) -> None:
    split = split_of(tokenizer, TEXTS)
    whole = excerpts(split, tokenizer, num=10, max_tokens=10_000)
    assert [document.num_bytes for document in whole] == [len(text.encode()) for text in TEXTS]
    assert [tokenizer.decode(document.tokens) for document in whole] == TEXTS
    for length in range(1, 20):
        [first] = excerpts(split, tokenizer, num=1, max_tokens=length)
        beginning = text_bytes(tokenizer, first.tokens)
        assert TEXTS[0].encode().startswith(beginning)
        assert first.num_bytes == len(beginning)


def test_reading_in_pieces_is_reading_at_once(tokenizer: Tokenizer, model: LanguageModel) -> None:
    documents = held_out(tokenizer).documents
    text = HeldOutText(documents * 12, ["a"] * 36)
    calls: list[None] = []
    begin_id = tokenizer.reserved.end_of_text
    found = model_bits(model, text, begin_id=begin_id, on_piece=lambda: calls.append(None))
    np.testing.assert_allclose(
        found, np.tile(document_bits(model, documents, begin_id=begin_id, context=64), 12), rtol=1e-5
    )
    assert len(calls) == 3


def test_counting_profits_from_the_training_text(tokenizer: Tokenizer) -> None:
    text = held_out(tokenizer)
    begin_id = tokenizer.reserved.end_of_text
    seen, order = ngram_bits(split_of(tokenizer, [*LINES, *TEXTS]), text, begin_id=begin_id, on_piece=lambda: None)
    unseen, _ = ngram_bits(split_of(tokenizer, LINES[:1]), text, begin_id=begin_id, on_piece=lambda: None)
    assert order == 5
    assert (seen < unseen).all()


def test_xz_is_given_the_documents_own_bytes(tokenizer: Tokenizer) -> None:
    found = xz_bits(split_of(tokenizer, LINES), held_out(tokenizer), tokenizer, on_piece=lambda: None)
    joined = "".join(TEXTS).encode()
    size = len(lzma.compress(joined, preset=9 | lzma.PRESET_EXTREME))
    assert found.alone == pytest.approx(8 * size / len(joined))
    assert (found.num_bytes, found.training_bytes) == (len(joined), sum(len(line.encode()) for line in LINES))


def test_sources_weighed_by_their_bytes_give_the_whole(tokenizer: Tokenizer) -> None:
    text = held_out(tokenizer)
    bits = {"one": np.array([10.0, 20.0, 33.0]), "two": np.array([1.0, 2.0, 3.0])}
    record = reading_record(bits, Compression(1.0, 0.5, 10, 20), text, seed=1, draws=200)
    num_bytes = [document.num_bytes for document in text.documents]
    assert record["bits_per_byte"]["one"]["mean"] == pytest.approx(63 / sum(num_bytes))
    assert record["by_source"]["a"]["one"]["mean"] == pytest.approx(43 / (num_bytes[0] + num_bytes[2]))
    assert record["by_source"]["b"]["two"]["mean"] == pytest.approx(2 / num_bytes[1])
    assert (record["num_documents"], record["num_bytes"]) == (3, sum(num_bytes))
