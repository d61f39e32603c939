"""Questions about a given passage: what it says, how many, and what it does not say."""

from __future__ import annotations

from dataclasses import replace

from sanbai.world.lexicon import DAYS, FEELINGS, FOODS, PLACES, THINGS, WEATHER
from sanbai.world.outings import (
    SLOTS,
    TELLING,
    TOLD,
    Outing,
    answer_slot,
    ask_slot,
    draw_outing,
    draw_slots,
    draw_variants,
    slot_value,
    tell,
)
from sanbai.world.tasks.task import Draft, Phrasings, Scene, Task, Truth

FRAMES = Phrasings(
    (
        "{passage} {question}",
        "Read the text. {passage}\n{question}",
        "Text: {passage}\nQuestion: {question}",
        "{passage}\n{question}",
        "{question} {passage}",
        "Question: {question}\nText: {passage}",
        "Read this and answer. {question}\n{passage}",
        "Here is what I read: {passage}\nTell me: {question}",
    ),
    ("Here is a text: {passage}\nNow answer: {question}", "{question}\n{passage}"),
)
NOT_SAID = ("The text does not say.", "The text does not tell us that.")
CHOICES: dict[str, tuple[str, ...]] = {
    "place": tuple(PLACES), "meeting": tuple(PLACES), "day": tuple(DAYS), "bought": tuple(THINGS),
    "found": tuple(THINGS), "lost": tuple(THINGS), "food": tuple(FOODS), "weather": tuple(WEATHER),
    "feeling": tuple(FEELINGS),
}  # fmt: skip


def everyone(scene: Scene) -> tuple[str, ...]:
    """Return the names that a passage may use: villagers and strangers of this side."""
    return (*(person.name for person in scene.people), *scene.strangers)


def altered(scene: Scene, outing: Outing, slot: str) -> Outing:
    """Return the outing with another value in one slot."""
    if slot == "number":
        return replace(outing, number=scene.other(range(2, 10), outing.number))
    if slot == "friend":
        return replace(outing, friend=scene.other(everyone(scene), outing.friend, outing.hero))
    nearby = [outing.place, outing.meeting] if slot in {"place", "meeting"} else []
    choices = nearby if len(set(nearby)) == 2 and scene.chance(0.5) else CHOICES[slot]
    fields = {**vars(outing), slot: scene.other(choices, slot_value(outing, slot))}
    return Outing(**fields)


def write_passage_fact(scene: Scene) -> Draft:
    """Ask for something that a passage of two to four sentences says."""
    outing = draw_outing(scene, everyone(scene))
    slots = draw_slots(scene, scene.random.randint(2, 4))
    asked = scene.choose([slot for slot in SLOTS if TELLING.get(slot, slot) in slots])
    frame = scene.phrase(FRAMES)
    question = ask_slot(scene, outing, asked)
    value = slot_value(outing, asked)
    mistaken = altered(scene, outing, asked)
    truth = Truth(
        rule="number" if asked == "number" else "value",
        category=SLOTS[asked].category,
        answers=(value,),
        allowed=tuple(
            other for other in (outing.hero, outing.day, outing.place, outing.meeting) if f" {other}" in question
        )
        + ((outing.hero,) if asked == "friend" else ()),
        good=(answer_slot(outing, asked), answer_slot(outing, asked, named=False)),
        faulty={"wrong": (answer_slot(mistaken, asked),)},
    )
    return Draft(frame.format(passage=tell(outing, slots, draw_variants(scene, slots)), question=question), truth)


def write_passage_missing(scene: Scene) -> Draft:
    """Ask for something that the passage does not say."""
    outing = draw_outing(scene, everyone(scene))
    slots = draw_slots(scene, scene.random.randint(2, 3))
    asked = scene.choose([slot for slot in TOLD if slot not in slots])
    question = ask_slot(scene, outing, asked)
    truth = Truth(
        rule="unknown",
        category=SLOTS[asked].category,
        good=NOT_SAID,
        faulty={"bluffing": (answer_slot(outing, asked),)},
    )
    passage = tell(outing, slots, draw_variants(scene, slots))
    return Draft(scene.phrase(FRAMES).format(passage=passage, question=question), truth)


TASKS = (
    Task("passage_fact", "closed question", 5.5, write_passage_fact),
    Task("passage_missing", "closed question", 2.0, write_passage_missing),
)
