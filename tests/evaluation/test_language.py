from __future__ import annotations

import math

import pytest
from tests.evaluation.slow import slow_logprobs

from sanbai.evaluation.language import HeldOutDocument, bits_per_byte, document_bits, document_windows
from sanbai.foundation.errors import DataError
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer

TEXTS = ["The cow likes the miller.", "水车 was 50 years old; so was the miller's son.", "a", ""]


def held_out(tokenizer: Tokenizer, texts: list[str]) -> list[HeldOutDocument]:
    return [HeldOutDocument(tokens=tokenizer.encode(text), num_bytes=len(text.encode())) for text in texts]


def test_bits_of_a_document_equal_a_loop_over_its_tokens(model: LanguageModel, tokenizer: Tokenizer) -> None:
    documents = held_out(tokenizer, TEXTS)
    begin_id = tokenizer.reserved.end_of_text
    bits = document_bits(model, documents, begin_id=begin_id, context=64)
    expected = [-math.fsum(slow_logprobs(model, [begin_id, *d.tokens])) / math.log(2) for d in documents]
    assert bits.tolist() == pytest.approx(expected, abs=1e-4)
    estimate = bits_per_byte(model, documents, begin_id=begin_id, context=64, seed=0)
    assert estimate.mean == pytest.approx(sum(expected) / sum(len(text.encode()) for text in TEXTS), abs=1e-5)
    assert estimate.low <= estimate.mean <= estimate.high
    assert estimate.n == 3  # the empty document says nothing


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 12, 30])
def test_windows_score_every_token_once_with_half_a_window_of_context(length: int) -> None:
    document = HeldOutDocument(tokens=list(range(100, 100 + length)), num_bytes=length)
    windows = document_windows([document], begin_id=0, context=8)
    scored = [token for window in windows for token in window.row[window.first_scored :]]
    assert scored == list(document.tokens)
    assert all(len(window.row) <= 8 for window in windows)
    for number, window in enumerate(windows):
        assert window.first_scored == (1 if number == 0 else 4)
        assert window.row[0] == 0 or number > 0


def test_a_long_document_is_read_in_windows_as_a_loop_would(model: LanguageModel, tokenizer: Tokenizer) -> None:
    (document,) = held_out(tokenizer, [TEXTS[1]])
    begin_id, context = tokenizer.reserved.end_of_text, 10
    row = [begin_id, *document.tokens]
    total, scored = 0.0, 1
    while scored < len(row):
        start = 0 if scored == 1 else scored - 5
        window = row[start : start + context]
        total += math.fsum(slow_logprobs(model, window)[scored - start - 1 :])
        scored = start + len(window)
    bits = document_bits(model, [document], begin_id=begin_id, context=context)
    assert bits[0] == pytest.approx(-total / math.log(2), abs=1e-4)


def test_no_text_at_all_is_an_error_in_words(model: LanguageModel) -> None:
    with pytest.raises(DataError, match="held-out text"):
        bits_per_byte(model, [HeldOutDocument(tokens=[], num_bytes=0)], begin_id=0, context=8, seed=0)
