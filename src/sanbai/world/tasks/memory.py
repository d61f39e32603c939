"""Questions about the village from memory: people's facts, families, events; and whether a statement is true."""

from __future__ import annotations

from sanbai.world.facts import FACTS, fact_value, state, state_with_pronoun
from sanbai.world.lexicon import DAYS, PLACES, category
from sanbai.world.tasks.task import Draft, Phrasings, Scene, Task, Truth
from sanbai.world.village import Person

CHECKS = Phrasings(
    (
        "Is it true that {statement}?",
        "True or not: {statement}?",
        "Is it right that {statement}?",
        "Tell me: is it true that {statement}?",
        "{statement}: is that true?",
        "Do you think that {statement}?",
    ),
    ("Tell me if it is true that {statement}.", "Is this true: {statement}?"),
)
WHEN = Phrasings(
    (
        "When is the {event}?",
        "On which day is the {event}?",
        "Tell me the day of the {event}.",
        "What is the day of the {event}?",
    ),
    ("Which day is the {event} on?", "On what day is the {event}?"),
)
WHERE = Phrasings(
    (
        "Where is the {event}?",
        "At which place is the {event}?",
        "Tell me the place of the {event}.",
        "What is the place of the {event}?",
    ),
    ("Which place is the {event} at?", "At what place is the {event}?"),
)


def draw_fact(scene: Scene) -> tuple[Person, str, str]:
    """Choose a villager, an attribute that the village holds for her or him, and its value that this side may name."""
    while True:
        person = scene.choose(scene.people)
        attribute = scene.choose(FACTS)
        value = fact_value(scene.village, person, attribute)
        if value and (FACTS[attribute].category != "person" or scene.can_name(value)):
            return person, attribute, value


def another_value(scene: Scene, person: Person, attribute: str, value: str) -> str:
    """Choose a wrong value of the attribute, one that this side may name."""
    if FACTS[attribute].category == "person":
        return scene.other(
            [other.name for other in scene.people if other.woman == scene.village.folk[value].woman], value, person.name
        )
    if attribute == "animal":
        return scene.other(("dog", "cat", "goat", "horse", "hen", "duck", "rabbit"), value)
    return scene.other(tuple(category(FACTS[attribute].category).values()), value)


def write_memory_fact(scene: Scene) -> Draft:
    """Ask for one attribute of a villager."""
    person, attribute, value = draw_fact(scene)
    fact = FACTS[attribute]
    truth = Truth(
        rule="value",
        category=fact.category,
        answers=(value,),
        allowed=(person.name,) if fact.category == "person" else (),
        good=(state(attribute, person.name, value), state_with_pronoun(attribute, person, value)),
        faulty={"wrong": (state(attribute, person.name, another_value(scene, person, attribute, value)),)},
        about_world=True,
    )
    return Draft(scene.phrase(fact.questions).format(name=person.name), truth)


def write_memory_check(scene: Scene) -> Draft:
    """Ask whether a statement about a villager is true."""
    person, attribute, value = draw_fact(scene)
    holds = scene.chance(0.5)
    said = value if holds else another_value(scene, person, attribute, value)
    right = state(attribute, person.name, value)
    yes, no = (f"Yes, {right}",), (f"No, {right}", f"No. {right}")
    truth = Truth(
        rule="yes_no",
        answers=("yes" if holds else "no", value),
        options=(said,),
        good=yes if holds else no,
        faulty={"wrong": ("No, that is not true.",) if holds else (f"Yes, {state(attribute, person.name, said)}",)},
        about_world=True,
    )
    statement = state(attribute, person.name, said).rstrip(".")
    return Draft(scene.phrase(CHECKS).format(statement=statement), truth)


def write_event(scene: Scene) -> Draft:
    """Ask when or where one of the village's events is."""
    event = scene.choose(scene.village.events)
    asks_day = scene.chance(0.5)
    value = event.day if asks_day else event.place
    wrong = scene.other(DAYS if asks_day else PLACES, value)
    answer = "The {event} is on {value}." if asks_day else "The {event} is at the {value}."
    short = "It is on {value}." if asks_day else "It is at the {value}."
    truth = Truth(
        rule="value",
        category="day" if asks_day else "place",
        answers=(value,),
        good=(answer.format(event=event.name, value=value), short.format(value=value)),
        faulty={"wrong": (answer.format(event=event.name, value=wrong),)},
        about_world=True,
    )
    return Draft(scene.phrase(WHEN if asks_day else WHERE).format(event=event.name), truth)


TASKS = (
    Task("memory_fact", "open question", 6.0, write_memory_fact, few_shot=True),
    Task("memory_check", "open question", 2.0, write_memory_check),
    Task("event", "open question", 1.0, write_event),
)
