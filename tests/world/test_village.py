from __future__ import annotations

import pytest
from pydantic import ValidationError

from sanbai.world.lexicon import ANIMALS, FOODS, HOBBIES, STREETS, TRADES, article, category, join, plural, words_of
from sanbai.world.recipe import WorldRecipe
from sanbai.world.village import Village, make_village


def test_the_same_seed_gives_the_same_village_and_another_seed_another() -> None:
    assert make_village(5) == make_village(5)
    assert make_village(5).folk != make_village(6).folk


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("num_people", [24, 64, 70])
def test_families_hang_together(seed: int, num_people: int) -> None:
    village = make_village(seed, WorldRecipe(num_people=num_people))
    assert len(village.folk) == num_people
    for person in village.people():
        for child in person.children:
            assert person.name in {village.folk[child].mother, village.folk[child].father}
            assert village.folk[child].age < person.age
        if person.mother:
            mother = village.folk[person.mother]
            assert mother.woman
            assert person.name in mother.children
            assert mother.spouse == person.father
        if person.spouse:
            assert village.folk[person.spouse].spouse == person.name
            assert village.folk[person.spouse].woman != person.woman
            assert village.folk[person.spouse].street == person.street
        assert (person.trade == "pupil") == (person.age < 18)


def test_every_value_comes_from_the_lexicon(village: Village) -> None:
    for person in village.people():
        assert person.trade in TRADES
        assert person.hobby in HOBBIES
        assert person.food in FOODS
        assert person.street in STREETS
        assert person.animal is None or person.animal.kind in ANIMALS


def test_relatives_agree_with_the_parents(village: Village) -> None:
    checked = 0
    for person in village.people():
        if not person.mother:
            continue
        mother, father = village.folk[person.mother], village.folk[person.father]
        elders = {mother.mother, mother.father, father.mother, father.father} - {""}
        found = {*village.relatives(person, "grandmother"), *village.relatives(person, "grandfather")}
        assert found == elders
        siblings = {*village.relatives(person, "brother"), *village.relatives(person, "sister")}
        assert siblings == {*mother.children} - {person.name}
        checked += bool(elders)
    assert checked > 10


def test_heldout_people_and_strangers_are_apart_from_the_others(village: Village) -> None:
    train = {person.name for person in village.people("train")}
    heldout = {person.name for person in village.people("heldout")}
    assert train | heldout == {*village.folk}
    assert not train & heldout
    assert 0.2 * len(village.folk) <= len(heldout) <= 0.35 * len(village.folk)
    strangers = {*village.strangers, *village.heldout_strangers}
    assert not strangers & {*village.folk}
    assert not {*village.strangers} & {*village.heldout_strangers}


def test_no_written_form_stands_for_two_values() -> None:
    names = words_of("person pet relation trade hobby food animal place street day thing feeling weather colour event")
    forms = [form for name in names for form in category(name)]
    assert len(forms) == len({*forms})


def test_grammar_of_nouns() -> None:
    assert [plural(noun) for noun in ("lamp", "box", "pony", "key", "bench")] == [
        "lamps", "boxes", "ponies", "keys", "benches",
    ]  # fmt: skip
    assert [article(noun) for noun in ("owl", "lamp", "umbrella")] == ["an owl", "a lamp", "an umbrella"]
    assert [join(["a"]), join(["a", "b"]), join(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(ValidationError):
        WorldRecipe(wordy_share=1.5)
