from __future__ import annotations

import pytest

from sanbai.foundation.errors import DataError
from sanbai.world.entities import entities, names_and_phrases
from sanbai.world.letters import FEELINGS, letters
from sanbai.world.tasks.classifying import FEELING_TEXTS
from sanbai.world.village import Village


def test_letters_are_different_and_the_held_out_ones_name_nobody_of_the_others(village: Village) -> None:
    train = list(letters(village, 1, num=400))
    heldout = list(letters(village, 1, num=100, heldout=True))
    assert len({letter.text for letter in (*train, *heldout)}) == 500
    assert {letter.feeling for letter in train} == set(FEELINGS) == {letter.feeling for letter in heldout}
    hidden = {*village.heldout, *village.heldout_strangers}
    assert not any(name in letter.text.split() for letter in train for name in hidden)
    assert train == list(letters(village, 1, num=400)) != list(letters(village, 2, num=400))


def test_a_letter_holds_two_sentences_of_its_feeling(village: Village) -> None:
    for letter in letters(village, 1, num=100):
        openings = {text.split("{")[0] for text in FEELING_TEXTS[letter.feeling] if not text.startswith("{")}
        assert not any(feeling in letter.text.lower().split() for feeling in FEELINGS)
        assert any(opening and opening in letter.text for opening in openings) or letter.text[0].isupper()


def test_more_letters_than_there_are_is_said(village: Village, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sanbai.world.letters.MAX_REPEATS", 1)
    with pytest.raises(DataError, match="different letters"):
        list(letters(village, 1, num=1000))


def test_names_hold_everybody_and_no_empty_name(village: Village) -> None:
    names = names_and_phrases(village)
    assert len(set(names)) == len(names)
    assert all(name.strip() == name != "" for name in names)
    assert set(village.folk) | set(village.strangers) | {"Elm Lane", "Linden"} <= set(entities(village))
    assert "bakes bread" in names
