from __future__ import annotations

import re

import numpy as np
import pytest

from sanbai.data.masking import Masking, mask_rows, name_finder
from sanbai.data.packing import PackedBatch
from sanbai.foundation.errors import DataError, UsageError
from sanbai.foundation.seeds import numpy_generator
from sanbai.text.reserved import READING_MARKERS
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

TEXTS = ["Anna lives in Elm Lane. Annabel bakes bread.\n", "安娜住在榆树巷。Otto's goat, Anna's hen."]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS[:1] * 20, vocab_size=340, extra_markers=tuple(READING_MARKERS.values()))


def within(count: int, share: float, trials: int, *, deviations: float = 4.0) -> bool:
    """Whether a count lies where a binomial's would."""
    return abs(count - share * trials) <= deviations * (trials * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_the_share_is_chosen_and_split_80_10_10(tokenizer: Tokenizer, share: float) -> None:
    masking = Masking(tokenizer, share=share)
    assert Masking(tokenizer).share == 0.15
    ordinary = sorted(set(range(tokenizer.vocab_size)) - tokenizer.reserved_ids)
    hidden = kept = replaced = chosen_in_all = 0
    for row in range(2000):
        tokens = numpy_generator(1, "tokens", row).choice(ordinary, size=100)
        seen, chosen = masking.hide(tokens, numpy_generator(1, "masks", row))
        assert chosen.sum() == round(100 * share)
        assert (seen == tokens)[~chosen].all()
        chosen_in_all += int(chosen.sum())
        hidden += int((seen[chosen] == masking.ids.mask).sum())
        kept += int((seen[chosen] == tokens[chosen]).sum())
        replaced += int(((seen != tokens) & (seen != masking.ids.mask))[chosen].sum())
    # A random token is the old one by chance once in as many draws as there are ordinary tokens.
    by_chance = 0.1 / len(ordinary)
    assert within(hidden, 0.8, chosen_in_all)
    assert within(replaced, 0.1 - by_chance, chosen_in_all)
    assert within(kept, 0.1 + by_chance, chosen_in_all)


def test_every_place_is_chosen_equally_often_and_random_tokens_are_spread_evenly(tokenizer: Tokenizer) -> None:
    masking = Masking(tokenizer)
    ordinary = sorted(set(range(tokenizer.vocab_size)) - tokenizer.reserved_ids)
    tokens = np.full(40, ordinary[0])
    places, drawn = np.zeros(40), np.zeros(tokenizer.vocab_size)
    num_rows = 4000
    for row in range(num_rows):
        seen, chosen = masking.hide(tokens, numpy_generator(2, row))
        places += chosen
        drawn += np.bincount(seen[chosen & (seen != masking.ids.mask)], minlength=tokenizer.vocab_size)
    assert all(within(int(count), 6 / 40, num_rows, deviations=4.5) for count in places)
    assert drawn[sorted(tokenizer.reserved_ids)].sum() == 0
    others = drawn[ordinary[1:]]
    expected = num_rows * 6 * 0.1 / len(ordinary)
    assert ((others - expected) ** 2 / expected).sum() < len(others) + 5 * (2 * len(others)) ** 0.5  # chi squared


def test_reserved_tokens_are_never_chosen_and_one_token_is_always(tokenizer: Tokenizer) -> None:
    masking = Masking(tokenizer)
    ids = masking.ids
    row = np.array([ids.cls, 200, ids.sep, tokenizer.reserved.pad, tokenizer.reserved.pad])
    for number in range(200):
        seen, chosen = masking.hide(row, numpy_generator(3, number))
        assert chosen.tolist() == [False, True, False, False, False]
        assert (seen[[0, 2, 3, 4]] == row[[0, 2, 3, 4]]).all()


def test_names_are_found_as_a_slow_search_in_the_text_finds_them(tokenizer: Tokenizer) -> None:
    names = ("Anna", "Elm Lane", "安娜", "榆树巷", "Otto", "bakes bread")
    find = name_finder(tokenizer, names)
    for text in (*TEXTS, "\nAnna, Annabel and Otto bakes bread. Hanna", "no name", "Anna Anna"):
        tokens = np.array([tokenizer.reserved.end_of_text, *tokenizer.encode(text)])
        found = [tokenizer.decode(tokens[start:stop]).strip(" \n.,'") for start, stop in find(tokens)]
        words = re.findall(r"[A-Za-z]+|[\u4e00-\u9fff]+", text)
        wanted, place = [], 0
        while place < len(words):
            pair = " ".join(words[place : place + 2])
            if pair in names:
                wanted.append(pair)
                place += 2
                continue
            if words[place] in names:
                wanted.append(words[place])
            elif not words[place].isascii():
                wanted += [name for name in ("安娜", "榆树巷") if name in words[place]]
            place += 1
        assert len(found) == len(wanted), (found, wanted)
        assert all(name in piece for name, piece in zip(wanted, found, strict=True)), (found, wanted)


def test_a_name_is_hidden_kept_or_replaced_whole_and_never_in_part(tokenizer: Tokenizer) -> None:
    find = name_finder(tokenizer, ("Elm Lane", "Anna"))
    masking = Masking(tokenizer, find)
    tokens = np.array(tokenizer.encode(TEXTS[0] * 8))
    spans = find(tokens)
    assert any(stop - start > 1 for start, stop in spans)
    hidden = 0
    for row in range(300):
        seen, chosen = masking.hide(tokens, numpy_generator(4, row))
        assert chosen.sum() <= round(0.15 * len(tokens))
        for start, stop in spans:
            assert chosen[start:stop].all() or not chosen[start:stop].any()
            is_mask = seen[start:stop] == masking.ids.mask
            assert is_mask.all() or not is_mask.any()
            hidden += bool(is_mask.all())
    assert hidden > 0


def test_documents_of_packed_rows_open_with_cls_and_end_with_sep(tokenizer: Tokenizer) -> None:
    mark, pad, ids = tokenizer.reserved.end_of_text, tokenizer.reserved.pad, tokenizer.reading
    tokens = np.array([[mark, 200, 201, mark, mark, 202, mark, pad]])
    segments = np.array([[1, 1, 1, 1, 2, 2, 2, 0]])
    positions = np.array([[0, 1, 2, 3, 0, 1, 2, 0]])
    packed = PackedBatch(tokens, segments, positions, np.ones_like(tokens, dtype=bool))
    batch = mask_rows(packed, Masking(tokenizer), end_of_text=mark, generators=[numpy_generator(1)])
    assert batch.targets_BT.tolist() == [[ids.cls, 200, 201, ids.sep, ids.cls, 202, ids.sep, pad]]
    assert batch.loss_mask_BT.sum() == 1
    assert packed.tokens_BT[0, 0] == mark, "the packed rows themselves stay as they are"


def test_a_tokenizer_without_a_mask_and_a_list_without_names_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match=r"no <\|mask\|>"):
        Masking(train_tokenizer(TEXTS, vocab_size=300))
    with pytest.raises(DataError, match="no names"):
        name_finder(tokenizer, ())
