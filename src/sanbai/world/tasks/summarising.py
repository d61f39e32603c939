"""Summaries: a passage or a letter in one short sentence."""

from __future__ import annotations

from dataclasses import replace

from sanbai.world.lexicon import PLACES, article
from sanbai.world.outings import draw_outing, draw_slots, draw_variants, tell
from sanbai.world.tasks.reading import everyone
from sanbai.world.tasks.task import Draft, Phrasings, Scene, Task, Truth, pronoun

SUMMARISE = Phrasings(
    (
        "Sum up this text in one sentence: {text}",
        "Summarise: {text}",
        "{text}\nSum this up in one sentence.",
        "{text} Summarise it.",
        "Give me one sentence about this text: {text}",
        "Tell me in one sentence what happens: {text}",
    ),
    ("Give a one sentence summary of this text: {text}", "{text}\nSummarise this."),
)
SUMMARISE_LETTER = Phrasings(
    (
        "Sum up this letter in one sentence: {text}",
        "Summarise this letter: {text}",
        "{text}\nSum up this letter.",
        "Give me one sentence about this letter: {text}",
        "{text}\nWhat is this letter about, in one sentence?",
    ),
    ("Give a one sentence summary of this letter: {text}",),
)
LIMIT = 12


def write_summary(scene: Scene) -> Draft:
    """Sum up three or four sentences: who went where, and whom she or he met or what was found."""
    outing = draw_outing(scene, everyone(scene))
    second = scene.choose(("friend", "found", "lost"))
    slots = draw_slots(scene, scene.random.randint(3, 4), without=("friend", "found", "lost"))
    slots = (slots[0], second, *slots[2:])
    text = tell(outing, slots, draw_variants(scene, slots))

    def summary(day: object) -> str:
        told = vars(day)
        end = {"friend": "met {friend}", "found": "found a {found}", "lost": "lost a {lost}"}[second].format(**told)
        return f"{told['hero']} went to the {told['place']} and {end}."

    truth = Truth(
        rule="mention",
        required=(outing.hero, outing.place, getattr(outing, second)),
        word_limit=LIMIT,
        good=(summary(outing), summary(outing).replace("went to", "was at")),
        faulty={
            "unconstrained": (text,),
            "wrong": (summary(replace(outing, place=scene.other(PLACES, outing.place, outing.meeting))),),
        },
    )
    return Draft(scene.phrase(SUMMARISE).format(text=text), truth)


def write_letter_summary(scene: Scene) -> Draft:
    """Sum up a short letter: who tells whom what."""
    outing = draw_outing(scene, everyone(scene))
    event, told = scene.choose(
        (
            ("found", f"found {article(outing.found)}"),
            ("lost", f"lost the {outing.lost}"),
            ("place", f"went to the {outing.place}"),
            ("food", f"ate {outing.food}"),
        )
    )
    opening = scene.choose(("How are you?", "I hope you are well.", "Thank you for your letter."))
    ending = scene.choose(("Please write soon.", "Come and see me.", "See you on {day}.")).format(day=outing.day)
    text = f"Dear {outing.friend}, {opening} I {told}. {ending} Yours, {outing.hero}."
    truth = Truth(
        rule="mention",
        required=(outing.hero, outing.friend, getattr(outing, event)),
        word_limit=LIMIT,
        good=(
            f"{outing.hero} tells {outing.friend} that {pronoun(outing.hero)} {told}.",
            f"{outing.hero} {told} and tells {outing.friend}.",
        ),
        faulty={
            "unconstrained": (text,),
            "wrong": (
                f"{outing.friend} tells {scene.other(everyone(scene), outing.hero, outing.friend)} that {told}.",
            ),
        },
    )
    return Draft(scene.phrase(SUMMARISE_LETTER).format(text=text), truth)


TASKS = (
    Task("summary", "summarise", 4.5, write_summary),
    Task("letter_summary", "summarise", 2.5, write_letter_summary),
)
