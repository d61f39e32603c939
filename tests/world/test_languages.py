from __future__ import annotations

import hashlib
import string

import pytest

from sanbai.world.documents import documents
from sanbai.world.languages import ORDERS, Language, WordOrder, invented_languages, translated
from sanbai.world.recipe import WorldRecipe
from sanbai.world.village import make_village

TEXT = "Anna's hens, two of them, sleep in the old barn. Who feeds them? Otto (the miller) does!"


def english(language: Language, told: str) -> str:
    """The text told back: letters by a dictionary the other way round, words by the rule undone."""
    back = dict(zip(language.letters, string.ascii_lowercase, strict=True))
    letters = "".join(
        (back[sign.lower()].upper() if sign.isupper() else back[sign]) if sign.lower() in back else sign
        for sign in told
    )
    # Reading backwards, moving the last word to the front and reading backwards again moves the first to the end.
    undoing: tuple[WordOrder, ...] = (language.order,)
    if language.order == "last first":
        undoing = ("reversed", "last first", "reversed")
    for order in undoing:
        letters = Language("undo", string.ascii_lowercase, order).tell(letters)
    return letters


@pytest.mark.parametrize("order", ORDERS)
def test_a_language_keeps_every_word_and_its_place_follows_the_rule(order: WordOrder) -> None:
    language = Language("x", string.ascii_lowercase, order)
    told = {
        "straight": "two of them sleep, here",
        "reversed": "sleep them of two, here",
        "last first": "sleep two of them, here",
        "pairs swapped": "of two sleep them, here",
    }
    assert language.tell("two of them sleep, here") == told[order]
    assert (
        Language("x", string.ascii_lowercase, order).tell("a b c.")
        == {
            "straight": "a b c.",
            "reversed": "c b a.",
            "last first": "c a b.",
            "pairs swapped": "b a c.",
        }[order]
    )


def test_what_a_language_says_can_be_told_back_and_has_as_many_bytes() -> None:
    for language in invented_languages(12, 1):
        told = language.tell(TEXT)
        assert told != TEXT
        assert len(told.encode()) == len(TEXT.encode())
        assert english(language, told) == TEXT


def test_vowels_stay_vowels_and_no_letter_is_lost() -> None:
    for language in invented_languages(12, 1):
        assert sorted(language.letters) == list(string.ascii_lowercase)
        pairs = zip(string.ascii_lowercase, language.letters, strict=True)
        assert all((one in "aeiou") == (other in "aeiou") for one, other in pairs)


def test_languages_follow_from_the_seed_byte_for_byte_and_differ_from_each_other() -> None:
    told = [[language.tell(TEXT) for language in invented_languages(12, seed)] for seed in (1, 1, 2)]
    assert told[0] == told[1]
    assert len({*told[0], *told[2]}) == 24
    digest = hashlib.sha256("\n".join(told[0]).encode()).hexdigest()
    assert digest == "dd1d29b5ea0474707d9e7bc707b833db021ba0679056e40e039910bb47608aea"


def test_each_clean_english_document_is_told_in_one_language_in_turn() -> None:
    languages = invented_languages(3, 1)
    world = WorldRecipe(document_bytes=30_000)
    planted = list(documents(make_village(1, world), 1, recipe=world))
    clean = [one for one in planted if one.language == "en" and one.dirt == "clean"]
    found = list(translated(planted, languages))
    assert len(clean) < len(planted)
    assert [one.id for one in found] == [one.id for one in clean]
    assert [one.language for one in found[:4]] == ["language-01", "language-02", "language-03", "language-01"]
    for number, (one, original) in enumerate(zip(found, clean, strict=True)):
        assert one.text == languages[number % 3].tell(original.text)
