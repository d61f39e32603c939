from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanbai.data.packing import Cursor, EncodedItems, PackedBatches, best_fit, fill_rows, plan_epoch
from sanbai.foundation.errors import DataError
from sanbai.text.chat_template import EncodedConversation

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=60).filter(any)


def make_items(lengths: list[int]) -> EncodedItems:
    """Every token of every item has its own id, so that a lost, doubled or moved one shows; odd ones are learned."""
    ids = iter(range(1, 1 + sum(lengths)))
    sequences = [[next(ids) for _ in range(length)] for length in lengths]
    return EncodedItems([EncodedConversation(tokens, [token % 2 for token in tokens]) for tokens in sequences])


def plain_best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """The definition, by search: longest first, each piece into the row with the least space that still holds it."""
    rows: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in rows if capacity - sum(row) >= length]
        if fitting:
            min(fitting, key=lambda row: capacity - sum(row)).append(length)
        else:
            rows.append([length])
    return rows


@given(lengths=st.lists(st.integers(1, 32), min_size=1, max_size=80))
def test_best_fit_packs_like_the_search_that_defines_it(lengths: list[int]) -> None:
    row_N = best_fit(np.array(lengths), 32)
    ours = [[lengths[piece] for piece in np.flatnonzero(row_N == row)] for row in range(row_N.max() + 1)]
    theirs = plain_best_fit(lengths, 32)
    assert all(0 < sum(row) <= 32 for row in ours)
    assert Counter(sum(row) for row in ours) == Counter(sum(row) for row in theirs)


@given(lengths=LENGTHS, row_length=st.integers(2, 16), seed=st.integers(0, 3), window=st.sampled_from([1, 7, 1000]))
def test_every_token_appears_exactly_once_an_epoch(lengths: list[int], row_length: int, seed: int, window: int) -> None:
    items = make_items(lengths)
    plan = plan_epoch(items.lengths, row_length=row_length, seed=seed, epoch=0, window_items=window)
    batch = fill_rows(items, plan, range(plan.num_rows), pad_id=0)
    seen = Counter(batch.tokens_BT[batch.segments_BT > 0].tolist())
    assert seen == Counter(range(1, 1 + sum(lengths)))
    assert (batch.tokens_BT[batch.segments_BT == 0] == 0).all()
    assert plan.utilisation == pytest.approx(sum(lengths) / batch.tokens_BT.size)
    assert (batch.segments_BT[:, 0] == 1).all(), "no row is empty"


@given(lengths=LENGTHS, row_length=st.integers(2, 16))
def test_segments_hold_consecutive_tokens_of_one_item_and_positions_restart(
    lengths: list[int], row_length: int
) -> None:
    items = make_items(lengths)
    first_id = np.cumsum([1, *lengths])
    plan = plan_epoch(items.lengths, row_length=row_length, seed=0, epoch=0)
    batch = fill_rows(items, plan, range(plan.num_rows), pad_id=0)
    for row in range(plan.num_rows):
        for segment in range(1, batch.segments_BT[row].max() + 1):
            here = np.flatnonzero(batch.segments_BT[row] == segment)
            ids = batch.tokens_BT[row, here]
            assert (np.diff(here) == 1).all()
            assert (np.diff(ids) == 1).all()
            assert batch.positions_BT[row, here].tolist() == list(range(len(here)))
            item = np.searchsorted(first_id, ids[0], side="right") - 1
            assert ids[-1] < first_id[item + 1], "one item a segment"
            whole = lengths[item] <= row_length
            assert not whole or len(ids) == lengths[item], "what fits is not cut"
            mask = batch.loss_mask_BT[row, here].tolist()
            assert mask == [False, *(id_ % 2 == 1 for id_ in ids[1:].tolist())]
    assert not batch.loss_mask_BT[batch.segments_BT == 0].any()


def test_full_rows_waste_nothing_and_best_fit_beats_the_order_given() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 65, size=4000)
    plan = plan_epoch(lengths, row_length=64, seed=0, epoch=0)
    assert plan.utilisation > 0.99
    rows, space = 0, 0
    for length in lengths:  # the control: each into the last row while it fits
        if length > space:
            rows, space = rows + 1, 64
        space -= length
    assert lengths.sum() / (rows * 64) < 0.8


def batches(items: EncodedItems, cursor: Cursor | None = None) -> PackedBatches:
    return PackedBatches(items, row_length=8, batch_rows=3, seed=5, pad_id=0, cursor=cursor)


@settings(max_examples=25)
@given(skip=st.integers(0, 12))
def test_a_run_resumed_from_its_cursor_sees_the_same_batches(skip: int) -> None:
    items = make_items([5, 3, 9, 1, 8, 2, 2, 7, 20])
    stream = batches(items)
    for _ in range(skip):
        next(stream)
    resumed = batches(items, Cursor.from_state(stream.cursor.to_state()))
    for _ in range(4):
        ours, theirs = next(stream), next(resumed)
        for name in ("tokens_BT", "segments_BT", "positions_BT", "loss_mask_BT"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert resumed.cursor == stream.cursor


def test_batches_cross_an_epochs_end_without_losing_or_doubling_a_row() -> None:
    items = make_items([5, 3, 9, 1, 8, 2, 2, 7, 20])
    stream = batches(items)
    num_rows = stream.plan.num_rows
    assert num_rows % 3, "the test wants batches that cross the end"
    tokens_BT = np.concatenate([next(stream).tokens_BT for _ in range(num_rows)])
    for epoch in range(3):
        rows = tokens_BT[epoch * num_rows : (epoch + 1) * num_rows]
        assert sorted(rows[rows > 0].tolist()) == list(range(1, 58))


def test_another_epoch_and_another_seed_give_another_order() -> None:
    lengths = np.arange(1, 200)
    plans = [plan_epoch(lengths, row_length=64, seed=seed, epoch=epoch) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    again = plan_epoch(lengths, row_length=64, seed=0, epoch=0)
    assert plans[0].items_N.tolist() == again.items_N.tolist()
    assert len({tuple(plan.items_N.tolist()) for plan in plans}) == 3


def test_nothing_to_pack_is_a_clear_error() -> None:
    for lengths in ([], [0, 0]):
        with pytest.raises(DataError, match="nothing to pack"):
            plan_epoch(np.array(lengths, dtype=np.int64), row_length=8, seed=0, epoch=0)
