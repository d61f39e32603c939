"""The village itself: people in families, their trades, likes, homes and animals, and what happens where.

Everything is drawn from one seed. First names are unique, so a name is a person. Strangers are names that no
villager bears: puzzles use them freely, and the world holds nothing about them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from sanbai.foundation.seeds import python_random
from sanbai.world.lexicon import DAYS, EVENTS, FOODS, HOBBIES, PET_KINDS, PLACES, STREETS, TRADES
from sanbai.world.names import (
    CHINESE_NAMES,
    FAMILIES,
    MEN,
    MEN_FROM_ELSEWHERE,
    PETS,
    WOMEN,
    WOMEN_FROM_ELSEWHERE,
)
from sanbai.world.recipe import WorldRecipe

PeopleSplit = Literal["train", "heldout"]


@dataclass(frozen=True)
class Animal:
    """A household animal: its kind and its name."""

    kind: str
    name: str


@dataclass(frozen=True)
class Person:
    """One villager. Relatives are first names; an empty name or tuple says that the village knows none."""

    name: str
    family: str
    woman: bool
    age: int
    trade: str
    street: str
    hobby: str
    food: str
    animal: Animal | None = None
    mother: str = ""
    father: str = ""
    spouse: str = ""
    children: tuple[str, ...] = ()

    @property
    def pronoun(self) -> str:
        """She or he, in lower case."""
        return "she" if self.woman else "he"

    @property
    def possessive(self) -> str:
        """Her or his, in lower case."""
        return "her" if self.woman else "his"

    @property
    def object(self) -> str:
        """Her or him."""
        return "her" if self.woman else "him"

    @property
    def chinese(self) -> str:
        """The first name in Chinese characters."""
        return CHINESE_NAMES[self.name]


@dataclass(frozen=True)
class Event:
    """Something that happens in the village every year: when and where."""

    name: str
    day: str
    place: str


@dataclass(frozen=True)
class Village:
    """All that is true in the tiny world."""

    name: str
    seed: int
    folk: dict[str, Person] = field(hash=False)
    heldout: frozenset[str]
    strangers: tuple[str, ...]
    heldout_strangers: tuple[str, ...]
    events: tuple[Event, ...]

    def people(self, split: PeopleSplit | None = None) -> tuple[Person, ...]:
        """Return everybody, or those whom training prompts may name, or those whom they may not."""
        return self._people[split]

    @cached_property
    def _people(self) -> dict[PeopleSplit | None, tuple[Person, ...]]:
        everybody = tuple(self.folk.values())
        return {
            None: everybody,
            "train": tuple(person for person in everybody if person.name not in self.heldout),
            "heldout": tuple(person for person in everybody if person.name in self.heldout),
        }

    def siblings(self, person: Person) -> tuple[str, ...]:
        """Return the names of the others with the same mother."""
        if not person.mother:
            return ()
        return tuple(child for child in self.folk[person.mother].children if child != person.name)

    def relatives(self, person: Person, relation: str) -> tuple[str, ...]:
        """Return the names of everyone who is the person's `relation` (mother, son, grandfather ...)."""
        parents = tuple(name for name in (person.mother, person.father) if name)
        if relation in {"mother", "father"}:
            found: tuple[str, ...] = (person.mother if relation == "mother" else person.father,)
        elif relation in {"wife", "husband"}:
            found = (person.spouse,)
        elif relation in {"son", "daughter"}:
            found = person.children
        elif relation in {"brother", "sister"}:
            found = self.siblings(person)
        else:
            found = tuple(elder for parent in parents for elder in (self.folk[parent].mother, self.folk[parent].father))
        wants_woman = relation in {"mother", "wife", "daughter", "sister", "grandmother"}
        return tuple(name for name in found if name and self.folk[name].woman == wants_woman)


def make_village(seed: int, recipe: WorldRecipe | None = None) -> Village:
    """Draw a village; the same seed and recipe give the same one."""
    recipe = recipe or WorldRecipe()
    generator = python_random(seed, "village")
    women, men = list(WOMEN), list(MEN)
    generator.shuffle(women)
    generator.shuffle(men)
    folk = _grow_families(generator, women, men, recipe.num_people)
    folk = _give_animals(generator, folk)
    strangers = [*women, *men, *WOMEN_FROM_ELSEWHERE, *MEN_FROM_ELSEWHERE]
    generator.shuffle(strangers)
    num_heldout_strangers = max(6, round(len(strangers) * recipe.heldout_share))
    places = generator.sample(list(PLACES), len(EVENTS))
    return Village(
        name="Linden",
        seed=seed,
        folk=folk,
        heldout=_choose_heldout(generator, folk, recipe.heldout_share),
        strangers=tuple(strangers[num_heldout_strangers:]),
        heldout_strangers=tuple(strangers[:num_heldout_strangers]),
        events=tuple(
            Event(name, generator.choice(list(DAYS)), place) for name, place in zip(EVENTS, places, strict=True)
        ),
    )


def _grow_families(generator: random.Random, women: list[str], men: list[str], num_people: int) -> dict[str, Person]:
    """Marry grandparents, give them children, marry these across families, and so on until the village is full.

    Uses up names from the end of `women` and `men`.
    """
    folk: dict[str, Person] = {}
    trades = _endless(generator, [trade for trade in TRADES if trade != "pupil"])
    hobbies, foods = _endless(generator, list(HOBBIES)), _endless(generator, list(FOODS))
    streets, families = _endless(generator, list(STREETS)), _endless(generator, list(FAMILIES))

    def add(*, woman: bool, family: str, age: int, street: str, mother: str = "", father: str = "") -> Person:
        name = (women if woman else men).pop()
        trade = next(trades) if age >= 18 else "pupil"
        folk[name] = Person(
            name, family, woman, age, trade, street, next(hobbies), next(foods), mother=mother, father=father
        )
        return folk[name]

    def marry(wife: str, husband: str) -> None:
        street = next(streets)
        folk[wife] = replace(folk[wife], spouse=husband, street=street, family=folk[husband].family)
        folk[husband] = replace(folk[husband], spouse=wife, street=street)

    def bear(wife: str, age: int) -> Person:
        mother = folk[wife]
        woman = generator.random() < len(women) / max(1, len(women) + len(men))
        child = add(woman=woman, family=mother.family, age=age, street=mother.street, mother=wife, father=mother.spouse)
        for parent in (wife, mother.spouse):
            folk[parent] = replace(folk[parent], children=(*folk[parent].children, child.name))
        return child

    couples: list[str] = []
    for _ in range(max(2, num_people // 8)):
        wife = add(woman=True, family="", age=generator.randint(58, 75), street="")
        husband = add(woman=False, family=next(families), age=generator.randint(60, 80), street="")
        marry(wife.name, husband.name)
        couples.append(wife.name)
    grown = [bear(wife, folk[wife].age - generator.randint(22, 30)) for wife in couples for _ in range(3)]
    brides = [person for person in grown if person.woman]
    grooms = [person for person in grown if not person.woman]
    generator.shuffle(grooms)
    young: list[str] = []
    for bride in brides:
        groom = next((man for man in grooms if man.mother != bride.mother), None)
        if groom is None:
            continue
        grooms.remove(groom)
        marry(bride.name, groom.name)
        young.append(bride.name)
    while len(folk) < num_people:
        parent = min(
            generator.sample(young or couples, len(young or couples)), key=lambda name: len(folk[name].children)
        )
        bear(parent, max(4, min(15, folk[parent].age - generator.randint(20, 34))))
    return folk


def _give_animals(generator: random.Random, folk: dict[str, Person]) -> dict[str, Person]:
    names = _endless(generator, list(PETS))
    return {
        name: replace(person, animal=Animal(generator.choice(PET_KINDS), next(names)))
        if generator.random() < 0.6
        else person
        for name, person in folk.items()
    }


def _choose_heldout(generator: random.Random, folk: dict[str, Person], share: float) -> frozenset[str]:
    """Hold out whole households, so that a held-out child's parents are held out too."""
    households: dict[tuple[str, str], list[str]] = {}
    for person in folk.values():
        key = (person.street, person.family)
        households.setdefault(key, []).append(person.name)
    groups = list(households.values())
    generator.shuffle(groups)
    chosen: set[str] = set()
    for group in groups:
        if len(chosen) < share * len(folk):
            chosen.update(group)
    return frozenset(chosen)


def _endless(generator: random.Random, values: list[str]) -> Iterator[str]:
    """Yield the values in shuffled rounds, so that each is used about equally often."""
    while True:
        generator.shuffle(values)
        yield from values
