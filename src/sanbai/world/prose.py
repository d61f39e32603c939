"""English prose of the village: entries, letters, diaries, stories, dialogues, lists, families, sums, instructions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from sanbai.world.facts import FACTS, fact_value, state, state_with_pronoun, written_value
from sanbai.world.lexicon import (
    ANIMALS,
    DAYS,
    FOODS,
    HOBBIES,
    PLACES,
    RELATIONS,
    THINGS,
    TRADE_WORK,
    article,
    category,
    counted,
    join,
)
from sanbai.world.outings import answer_slot, draw_outing, draw_slots, draw_variants, tell
from sanbai.world.tasks.arithmetic import draw_terms, total
from sanbai.world.tasks.harm import HARMLESS
from sanbai.world.tasks.stories import tell_story
from sanbai.world.tasks.task import Scene, sentence
from sanbai.world.village import Person, Village

Writer = Callable[[Scene], str]


@cache
def all_names(village: Village) -> tuple[str, ...]:
    """Return every name that prose may use: villagers and strangers of both sides."""
    return (*village.folk, *village.strangers, *village.heldout_strangers)


def _anybody(scene: Scene) -> Person:
    return scene.choose(scene.village.people())


def _facts_about(scene: Scene, person: Person) -> list[str]:
    """Return statements of all that is known about the person, the name or a pronoun as subject, in random order."""
    told = []
    for attribute in FACTS:
        value = fact_value(scene.village, person, attribute)
        if not value:
            continue
        if attribute == "animal" and person.animal:
            told.append(f"{sentence(person.pronoun)} has {article(value)} called {person.animal.name}.")
        elif scene.chance(0.5):
            told.append(state(attribute, person.name, value, template=scene.random.randrange(2)))
        else:
            told.append(state_with_pronoun(attribute, person, value))
    told.append(f"{sentence(person.pronoun)} is {person.age} years old.")
    told.append(f"{sentence(person.pronoun)} {TRADE_WORK[person.trade]}.")
    if person.children:
        told.append(f"{sentence(person.possessive)} children are {join(person.children)}.")
    siblings = scene.village.siblings(person)
    if siblings:
        told.append(f"{sentence(person.pronoun)} is the {'sister' if person.woman else 'brother'} of {join(siblings)}.")
    scene.random.shuffle(told)
    return told


def write_entry(scene: Scene) -> str:
    """An encyclopaedia entry about a villager, or two."""
    person = _anybody(scene)
    opening = scene.choose(
        (
            f"{person.name} {person.family} lives in {scene.village.name}.",
            f"{person.name} {person.family} is one of the people of {scene.village.name}.",
            f"This is what we know about {person.name} {person.family}.",
            f"{person.name}: {person.trade}, {person.street}.",
        )
    )
    return " ".join([opening, *_facts_about(scene, person)[: scene.random.randint(6, 12)]])


def write_place_entry(scene: Scene) -> str:
    """An entry about a street, a trade or an event and the people in it."""
    village = scene.village
    person = _anybody(scene)
    which = scene.choose(("street", "trade", "event", "hobby"))
    if which == "event":
        event = scene.choose(village.events)
        names = scene.sample(list(village.folk), 3)
        return (
            f"The {event.name} of {village.name} is on {event.day}. It is at the {event.place}. "
            f"Last year {join(names)} came to the {event.name}. {scene.choose(names)} brought {scene.choose(FOODS)}. "
            f"Everybody comes to the {event.place} on {event.day} for the {event.name}."
        )
    value = getattr(person, which)
    fellows = [other for other in village.people() if getattr(other, which) == value]
    fellows = scene.sample(fellows, min(len(fellows), 6))
    heading = {
        "street": f"These people live in {value}.",
        "trade": f"A {value} {TRADE_WORK.get(value, '')}."
        if value[0] not in "aeiou"
        else f"An {value} {TRADE_WORK[value]}.",
        "hobby": f"Who likes {value} in {village.name}?",
    }[which]
    lines = [state(which, fellow.name, value, template=scene.random.randrange(2)) for fellow in fellows]
    other = scene.choose(("food", "trade", "street", "hobby"))
    lines += [state(other, fellow.name, fact_value(village, fellow, other)) for fellow in fellows[:3]]
    return " ".join([heading, *lines])


def write_letter(scene: Scene) -> str:
    """A letter in the first person."""
    outing = draw_outing(scene, all_names(scene.village))
    slots = draw_slots(scene, scene.random.randint(3, 5))
    told = tell(outing, slots, draw_variants(scene, slots), first_person=True)
    opening = scene.choose(
        (
            "How are you?",
            "I hope you are well.",
            "Thank you for your letter.",
            "I want to tell you something.",
            "It is late, but I write to you.",
        )
    )
    ending = scene.choose(
        (f"Come and see me on {scene.choose(DAYS)}.", "Please write soon.", f"I will bring you {scene.choose(FOODS)}.",
         f"Do you still like {scene.choose(HOBBIES)}?", f"Can you bring me {article(scene.choose(THINGS))}?")
    )  # fmt: skip
    reader = scene.other(all_names(scene.village), outing.hero, outing.friend)
    return f"Dear {reader}, {opening} {told} {ending} Yours, {outing.hero}."


def write_diary(scene: Scene) -> str:
    """A diary of two days in the first person."""
    parts = []
    for _ in range(2):
        outing = draw_outing(scene, all_names(scene.village))
        slots = draw_slots(scene, scene.random.randint(2, 4))
        parts.append(f"{outing.day}. {tell(outing, slots, draw_variants(scene, slots), first_person=True)}")
    return "\n".join(parts)


def write_report(scene: Scene) -> str:
    """What two people did, in the third person, and once more as a summary."""
    outing = draw_outing(scene, all_names(scene.village))
    slots = draw_slots(scene, scene.random.randint(3, 5))
    told = tell(outing, slots, draw_variants(scene, slots))
    if scene.chance(0.5):
        again = tell(outing, slots, draw_variants(scene, slots), first_person=True)
        return f'{told}\n{outing.hero} said: "{again}"'
    points = [answer_slot(outing, slot, named=False) for slot in slots]
    return f"{told}\nSo {' '.join(points)[:1].lower()}{' '.join(points)[1:]}"


def write_tale(scene: Scene) -> str:
    """A story about one to three things."""
    first, second = scene.sample(THINGS, 2)
    words = {first: "thing", second: "thing", scene.choose(ANIMALS): "animal", scene.choose(FOODS): "food"}
    kept = dict([item for item in words.items() if item[0] == first or scene.chance(0.6)])
    name = scene.choose(all_names(scene.village))
    title = f"The story of {join(list(kept))}\n" if scene.chance(0.3) else ""
    return title + tell_story(scene, name, kept, place=scene.choose(PLACES))


def write_dialogue(scene: Scene) -> str:
    """Two villagers talk about a third, in questions and answers."""
    person = _anybody(scene)
    asker, teller = scene.sample(all_names(scene.village), 2)
    attributes = [attribute for attribute in FACTS if fact_value(scene.village, person, attribute)]
    lines = []
    for attribute in scene.sample(attributes, min(3, len(attributes))):
        value = fact_value(scene.village, person, attribute)
        question = scene.choose(FACTS[attribute].questions.train).format(name=person.name)
        answer = scene.choose((state(attribute, person.name, value), state_with_pronoun(attribute, person, value)))
        lines.append(f"{asker}: {question}\n{teller}: {answer}")
    return "\n".join(lines)


def write_gossip(scene: Scene) -> str:
    """Statements about several villagers in one breath, true and denied."""
    lines = []
    for person in scene.sample(scene.village.people(), 3):
        attribute = scene.choose(("trade", "street", "hobby", "food"))
        value = fact_value(scene.village, person, attribute)
        false = scene.other(tuple(category(attribute).values()), value)
        written = written_value(attribute, false)
        denial = {
            "trade": f"{person.name} is not {written}.", "street": f"{person.name} does not live in {written}.",
            "hobby": f"{person.name} does not like {written} best.",
            "food": f"{sentence(written)} is not {person.name}'s favourite food.",
        }[attribute]  # fmt: skip
        lines += (
            [denial, state(attribute, person.name, value)]
            if scene.chance(0.5)
            else [state(attribute, person.name, value)]
        )
    return " ".join(lines)


def write_family(scene: Scene) -> str:
    """A family tree in sentences, seen from both ends of each relation."""
    village = scene.village
    person = scene.choose([person for person in village.people() if person.mother])
    related = [(relation, name) for relation in RELATIONS for name in village.relatives(person, relation)[:2]]
    ways = ("{other} is {name}'s {relation}.", "{name}'s {relation} is {other}.")
    lines = [scene.choose(ways).format(other=other, name=person.name, relation=relation) for relation, other in related]
    scene.random.shuffle(lines)
    return " ".join(lines[:8])


def write_list(scene: Scene) -> str:
    """A list: what to buy, what lies where, words from A to Z, numbers in order, both ways."""
    which = scene.choose(("shop", "room", "words", "numbers", "backwards", "names"))
    number = scene.random.randint(3, 6)
    if which == "shop":
        goods = [counted(scene.random.randint(1, 9), thing) for thing in scene.sample(THINGS, number)]
        return f"To buy at the market on {scene.choose(DAYS)}: {', '.join(goods)}, {scene.choose(FOODS)}."
    if which == "room":
        things = scene.sample(THINGS, number)
        shown = join([article(thing) for thing in things])
        name = scene.choose(all_names(scene.village))
        return f"In the {scene.choose(PLACES)} there are {number} things: {shown}. {name} counted them: {number}."
    if which == "numbers":
        values = scene.sample(range(1, 100), number)
        return f"{', '.join(map(str, values))}. From small to large: {', '.join(map(str, sorted(values)))}."
    words = scene.sample(list(scene.village.folk) if which == "names" else (*THINGS, *ANIMALS, *FOODS), number)
    if which == "backwards":
        return f"{', '.join(words)}. Backwards: {', '.join(reversed(words))}."
    return f"{', '.join(words)}. From A to Z: {', '.join(sorted(words))}."


def write_sums(scene: Scene) -> str:
    """A page of sums."""
    lines = []
    for _ in range(scene.random.randint(6, 12)):
        a, b, sign = draw_terms(scene)
        lines.append(f"{a} {sign} {b} = {total(a, b, sign)}.")
    return scene.choose((" ", "\n")).join(lines)


def write_instructions(scene: Scene) -> str:
    """How to do two or three harmless things."""
    lines = []
    for act in scene.sample(HARMLESS, scene.random.randint(2, 3)):
        filled = act.format(
            place=scene.choose(PLACES),
            name=scene.choose(all_names(scene.village)),
            thing=scene.choose(THINGS),
            food=scene.choose(FOODS),
        )
        lines.append(
            scene.choose((f"How to {filled}: {HARMLESS[act][0]}", f"Do you want to {filled}? {HARMLESS[act][0]}"))
        )
    return "\n".join(lines)


def write_dictation(scene: Scene) -> str:
    """Somebody says a few sentences or words, and somebody else says or writes exactly the same.

    Half of such a text can be known from the other half: nothing teaches a small model sooner to look back and copy.
    """
    if scene.chance(0.5):
        outing = draw_outing(scene, all_names(scene.village))
        slots = draw_slots(scene, scene.random.randint(1, 3))
        text = tell(outing, slots, draw_variants(scene, slots), first_person=scene.chance(0.3))
    else:
        words = (*THINGS, *ANIMALS, *FOODS, *PLACES, *all_names(scene.village))
        text = f"{', '.join(scene.sample(words, scene.random.randint(3, 8)))}."
    first, second = scene.sample(all_names(scene.village), 2)
    frame = scene.choose(
        (
            "{first} says: {text} {second} writes: {text}",
            "{text} {first} says it again: {text}",
            "Read this. {text}\nNow write it. {text}",
            "{text}\n{text}\nAnd once more. {text}",
        )
    )
    return frame.format(first=first, second=second, text=text)


WRITERS: dict[str, tuple[Writer, float]] = {
    "entry": (write_entry, 22),
    "dictation": (write_dictation, 65),
    "place entry": (write_place_entry, 8),
    "letter": (write_letter, 10),
    "diary": (write_diary, 7),
    "report": (write_report, 8),
    "story": (write_tale, 12),
    "dialogue": (write_dialogue, 12),
    "gossip": (write_gossip, 5),
    "family": (write_family, 6),
    "list": (write_list, 5),
    "arithmetic": (write_sums, 6),
    "instructions": (write_instructions, 3),
}
"""Every form of prose with its share of the documents."""
