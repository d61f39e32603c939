from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanbai.data.packing import PackedBatch
from sanbai.data.span_corruption import (
    corrupt_spans,
    cut_at_random,
    draw_noise,
    num_noise,
    prefix_rows,
    source_target_rows,
    span_cutter,
)
from sanbai.foundation.errors import UsageError
from sanbai.foundation.seeds import numpy_generator
from sanbai.text.reserved import sentinel_markers
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

SENTINELS = list(range(9000, 9100))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["Anna bakes bread."] * 9, vocab_size=400, extra_markers=sentinel_markers())


def slow_corruption(tokens: Sequence[int], noise: Sequence[bool]) -> tuple[list[int], list[int]]:
    """T5's figure, token by token."""
    source: list[int] = []
    target: list[int] = []
    span = -1
    for place, (token, hidden) in enumerate(zip(tokens, noise, strict=True)):
        if not hidden:
            source.append(token)
            continue
        if place == 0 or not noise[place - 1]:
            span += 1
            source.append(SENTINELS[span])
            target.append(SENTINELS[span])
        target.append(token)
    return source, target


def reassembled(source: Sequence[int], target: Sequence[int], sentinels: Sequence[int]) -> list[int]:
    """Put each sentinel's tokens back into its place."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in sentinels:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    return [part for token in source for part in (spans[token] if token in sentinels else [token])]


@settings(deadline=None)
@given(length=st.integers(2, 400), seed=st.integers(0, 10**6))
def test_corruption_is_that_of_a_slow_loop_and_can_be_undone(length: int, seed: int) -> None:
    tokens = np.array(random.Random(seed).choices(range(1000), k=length))
    noise = draw_noise(length, numpy_generator(seed))
    source, target = corrupt_spans(tokens, noise, SENTINELS)
    assert (source.tolist(), target.tolist()) == slow_corruption(tokens.tolist(), noise.tolist())
    assert reassembled(source.tolist(), target.tolist(), SENTINELS) == tokens.tolist()


@settings(deadline=None)
@given(length=st.integers(2, 600), seed=st.integers(0, 10**6))
def test_noise_has_the_wanted_tokens_and_spans_and_begins_with_a_kept_one(length: int, seed: int) -> None:
    noise = draw_noise(length, numpy_generator(seed))
    num_tokens, num_spans = num_noise(length)
    assert len(noise) == length
    assert noise.sum() == num_tokens
    assert not noise[0]
    assert np.diff(noise.astype(int)).clip(0).sum() == num_spans


def test_fifteen_percent_are_noise_in_spans_of_three_and_every_cut_is_equally_likely() -> None:
    tokens = spans = 0
    lengths: list[int] = []
    for seed in range(500):
        noise = draw_noise(512, numpy_generator(seed))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], noise.astype(int), [0]])))
        lengths += np.diff(edges)[::2].tolist()
        tokens += int(noise.sum())
    spans = len(lengths)
    assert tokens / (500 * 512) == pytest.approx(0.15, abs=1 / 512)
    assert tokens / spans == pytest.approx(3.0, abs=0.05)
    # Of all ways to cut n tokens into k spans, the share whose first span is 1 long is (k - 1) / (n - 1).
    num_tokens, num_spans = num_noise(512)
    share = (num_spans - 1) / (num_tokens - 1)
    observed = sum(length == 1 for length in lengths)
    assert abs(observed - share * spans) < 4 * (spans * share * (1 - share)) ** 0.5


def packed(tokenizer: Tokenizer, *documents: Sequence[int]) -> PackedBatch:
    mark = tokenizer.reserved.end_of_text
    rows = [[mark, *document, mark] for document in documents]
    tokens = np.array([[token for row in rows for token in row] + [tokenizer.reserved.pad] * 3])
    segments = np.array([[number for number, row in enumerate(rows, 1) for _ in row] + [0] * 3])
    positions = np.array([[place for row in rows for place in range(len(row))] + [0] * 3])
    return PackedBatch(tokens, segments, positions, segments > 0)


def test_both_halves_of_every_packed_text_keep_its_number_and_give_the_text_back(tokenizer: Tokenizer) -> None:
    documents = [[100 + n for n in range(40)], [80], [110, 111], [90 + n % 9 for n in range(25)]]
    batch = source_target_rows(
        packed(tokenizer, *documents),
        span_cutter(tokenizer, row_length=128),
        tokenizer,
        generators=[numpy_generator(5)],
    )
    mark = tokenizer.reserved.end_of_text
    given_back = []
    for segment in range(1, int(batch.source_segments_BM.max()) + 1):
        source = batch.source_BM[batch.source_segments_BM == segment].tolist()
        at = batch.target_segments_BT == segment
        target, decoder = batch.targets_BT[at].tolist(), batch.decoder_BT[at].tolist()
        assert source[-1] == target[-1] == mark
        assert decoder == [mark, *target[:-1]]
        given_back.append(reassembled(source[:-1], target[:-1], tokenizer.sentinels))
    assert given_back == [document for document in documents if len(document) > 1]


def test_a_prefix_and_its_rest_are_the_text_and_every_cut_is_equally_likely() -> None:
    tokens = np.arange(5)
    counts = [0] * 5
    for seed in range(4000):
        beginning, rest = cut_at_random(tokens, numpy_generator(seed))
        assert np.concatenate([beginning, rest]).tolist() == tokens.tolist()
        counts[len(beginning)] += 1
    assert counts[0] == 0
    assert all(abs(count - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5 for count in counts[1:])


def test_only_what_follows_a_prefix_is_learned(tokenizer: Tokenizer) -> None:
    batch = packed(tokenizer, list(range(100, 130)), [80], list(range(110, 116)))
    for seed in range(50):
        altered = prefix_rows(batch, generators=[numpy_generator(seed)])
        assert altered.prefix_BT is not None
        for segment in (1, 2, 3):
            here = batch.segments_BT[0] == segment
            prefix, learned = altered.prefix_BT[0][here], altered.loss_mask_BT[0][here]
            assert prefix[0]
            assert not learned[0]
            assert learned[-1]
            assert (learned == ~prefix).all()
            assert sorted(prefix.tolist(), reverse=True) == prefix.tolist(), "a prefix is a beginning"
        assert not altered.prefix_BT[batch.segments_BT == 0].any()


def test_too_few_sentinels_are_said_before_training(tokenizer: Tokenizer) -> None:
    few = train_tokenizer(["bread"], vocab_size=300, extra_markers=sentinel_markers(4))
    assert len(few.sentinels) == 4
    assert len(tokenizer.sentinels) == 100
    with pytest.raises(UsageError, match="4 sentinels"):
        span_cutter(few, row_length=512)
