import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sanbai.model.heads import LanguageModel
from sanbai.training.sequences import WIDTH_STEP, group_by_tokens, pack_sequences, row_width


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=150), min_size=1, max_size=12))
def test_every_token_lies_where_the_index_says_and_nothing_else_does(sequences: list[list[int]]) -> None:
    packed = pack_sequences(sequences, context=128)
    tokens, segments = packed.tokens_BT.flatten(), packed.segments_BT.flatten()
    for index, sequence in enumerate(sequences):
        start = int(packed.start_N[index])
        assert tokens[start : start + len(sequence)].tolist() == sequence
        assert len(set(segments[start : start + len(sequence)].tolist())) == 1
        assert int(packed.last()[index]) == start + len(sequence) - 1
    assert int((segments > 0).sum()) == sum(map(len, sequences))


def test_trap_11_a_sequence_alone_gives_the_numbers_it_gives_among_others(model: LanguageModel) -> None:
    sequences = [[(7 * row + t) % 290 for t in range(length)] for row, length in enumerate((3, 40, 17, 1, 55))]
    packed = pack_sequences(sequences, context=64)
    assert packed.tokens_BT.shape == (2, 64)
    together_XV = model(packed.tokens_BT, segments_BT=packed.segments_BT).flatten(0, 1)
    for index, sequence in enumerate(sequences):
        alone_TV = model(torch.tensor([sequence]))[0]
        start = int(packed.start_N[index])
        torch.testing.assert_close(together_XV[start : start + len(sequence)], alone_TV, rtol=1e-4, atol=1e-5)


def test_trap_05_rows_are_never_wider_than_the_models_context() -> None:
    sequences = [[1] * length for length in (40, 28, 20, 20, 20)]
    assert pack_sequences(sequences, context=1000).tokens_BT.shape == (1, 128)
    assert pack_sequences(sequences[0::4], context=64).tokens_BT.shape == (1, 64)


def test_sequences_of_like_lengths_get_rows_without_padding() -> None:
    packed = pack_sequences([[1] * 96] * 4, context=1000)
    assert packed.tokens_BT.shape == (4, 96)
    assert pack_sequences([[1, 2, 3]], context=64).tokens_BT.shape == (1, WIDTH_STEP)


@pytest.mark.parametrize(
    ("longest", "context", "width"), [(1, 64, 32), (32, 64, 32), (33, 64, 64), (33, 40, 40), (50, 40, 50)]
)
def test_lengths_of_rows_are_few_and_within_the_context_where_sequences_are(
    longest: int, context: int, width: int
) -> None:
    assert row_width(longest, context) == width


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 40))
def test_groups_keep_the_order_and_stay_within_the_bound(lengths: list[int], bound: int) -> None:
    groups = group_by_tokens(lengths, max_tokens=bound)
    assert [item for group in groups for item in group] == list(range(len(lengths)))
    assert all(len(group) == 1 or sum(lengths[item] for item in group) <= bound for group in groups)


def test_groups_are_as_large_as_the_bound_allows() -> None:
    assert group_by_tokens([3, 3, 3, 9, 1], max_tokens=6) == [[0, 1], [2], [3], [4]]
