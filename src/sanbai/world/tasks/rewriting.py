"""Rewriting under constraints: another name, the third person, politeness, a question, at most N words."""

from __future__ import annotations

from sanbai.world.lexicon import THINGS, article
from sanbai.world.names import FEMALE
from sanbai.world.outings import draw_outing, draw_slots, draw_variants, tell, tell_slot
from sanbai.world.tasks.reading import everyone
from sanbai.world.tasks.task import Draft, Phrasings, Scene, Task, Truth, sentence

RENAME = Phrasings(
    (
        "Write {new} instead of {old}: {text}",
        "Replace {old} with {new}. {text}",
        "{text}\nWrite {new} instead of {old}.",
        "Put the name {new} in the place of {old}: {text}",
        "In this text {old} becomes {new}: {text}",
    ),
    ("Change the name {old} to {new}: {text}",),
)
THIRD_PERSON = Phrasings(
    (
        "Write this about {name} in the third person: {text}",
        "{name} says: {text}\nWrite it in the third person.",
        "{text}\nThe speaker is {name}. Write it in the third person.",
        "Make this a text about {name}, in the third person: {text}",
        "{name} is the speaker. Tell it in the third person: {text}",
    ),
    ("Turn this into the third person, {name} is the speaker: {text}",),
)
POLITE = Phrasings(
    (
        "Make this polite: {text}",
        "Say this in a polite way: {text}",
        "{text}\nSay it politely.",
        "How can I say this politely: {text}",
        "Write a polite form of this: {text}",
    ),
    ("Write this politely: {text}",),
)
QUESTION = Phrasings(
    (
        "Make a question of this: {text}",
        "Turn this into a question: {text}",
        "{text}\nWrite it as a question.",
        "Change this to a question: {text}",
        "Write a question from this: {text}",
    ),
    ("Write this as a question: {text}",),
)
SHORTEN = Phrasings(
    (
        "Say this in at most {limit} words: {text}",
        "Make this shorter, at most {limit} words. {text}",
        "{text}\nSay it in no more than {limit} words.",
        "In at most {limit} words, please: {text}",
        "Write this with no more than {limit} words: {text}",
    ),
    ("Use no more than {limit} words to say this: {text}",),
)
BASE_FORMS = {
    "went": "go",
    "walked": "walk",
    "met": "meet",
    "bought": "buy",
    "found": "find",
    "lost": "lose",
    "ate": "eat",
}
ORDERS = (
    "Give me {a}.",
    "Bring me {a}.",
    "Show me {a}.",
    "Find {a} for me.",
    "Hold {the}.",
    "Carry {the}.",
    "Clean {the}.",
    "Mend {the}.",
)


def write_rename(scene: Scene) -> Draft:
    """Replace one name by another of the same gender, so that pronouns stay."""
    names = everyone(scene)
    outing = draw_outing(scene, names)
    slots = draw_slots(scene, scene.random.randint(1, 3))
    text = tell(outing, slots, draw_variants(scene, slots))
    new = scene.choose(
        [
            name
            for name in names
            if (name in FEMALE) == (outing.hero in FEMALE) and name not in {outing.hero, outing.friend}
        ]
    )
    target = text.replace(outing.hero, new)
    truth = Truth(
        rule="text",
        answers=(target,),
        required=(new,),
        forbidden=(outing.hero,),
        good=(target,),
        faulty={"unconstrained": (text,), "wrong": (target.replace(outing.place, outing.found),)},
    )
    return Draft(scene.phrase(RENAME).format(new=new, old=outing.hero, text=text), truth)


def write_third_person(scene: Scene) -> Draft:
    """Turn one to three sentences from I into she or he."""
    outing = draw_outing(scene, everyone(scene))
    slots = draw_slots(scene, scene.random.randint(1, 3), without=("weather",))
    variants = draw_variants(scene, slots)
    told = tell(outing, slots, variants, first_person=True)
    target = tell(outing, slots, variants)
    repeated = " ".join(
        tell_slot(outing, slot, subject=outing.hero, variant=n) for slot, n in zip(slots, variants, strict=True)
    )
    truth = Truth(
        rule="text",
        answers=(target, repeated),
        required=(outing.hero,),
        forbidden=("I", "my"),
        good=(target,),
        faulty={"unconstrained": (told,)},
    )
    return Draft(scene.phrase(THIRD_PERSON).format(name=outing.hero, text=told), truth)


def write_polite(scene: Scene) -> Draft:
    """Put please into an order."""
    thing = scene.choose(THINGS)
    order = scene.choose(ORDERS).format(a=article(thing), the=f"the {thing}")
    lowered = order[0].lower() + order[1:]
    targets = (f"Please {lowered}", f"Could you please {lowered[:-1]}?", f"{order[:-1]}, please.")
    truth = Truth(
        rule="text",
        answers=targets,
        required=("please",),
        good=targets[:2],
        faulty={"unconstrained": (order, f"{order[:-1]}!")},
    )
    return Draft(scene.phrase(POLITE).format(text=order), truth)


def write_question(scene: Scene) -> Draft:
    """Turn a statement in the past into a question with did."""
    outing = draw_outing(scene, everyone(scene))
    slot = scene.choose(("place", "friend", "bought", "found", "lost", "food"))
    variant = 1 if slot == "place" else 0
    statement = tell_slot(outing, slot, subject=outing.hero, variant=variant)
    words = statement.rstrip(".").split()
    target = f"Did {' '.join(BASE_FORMS.get(word, word) for word in words)}?"
    truth = Truth(
        rule="text", answers=(target,), required=("did",), good=(target,), faulty={"unconstrained": (statement,)}
    )
    return Draft(scene.phrase(QUESTION).format(text=statement), truth)


def write_shorten(scene: Scene) -> Draft:
    """Say who went where within a limit of words."""
    outing = draw_outing(scene, everyone(scene))
    slots = draw_slots(scene, scene.random.randint(2, 3), without=("weather",))
    text = tell(outing, slots, draw_variants(scene, slots))
    good = f"{outing.hero} went to the {outing.place}."
    truth = Truth(
        rule="mention",
        required=(outing.hero, outing.place),
        word_limit=scene.random.randint(6, 9),
        good=(good,),
        faulty={"unconstrained": (text,), "wrong": (f"{outing.hero} went to the {outing.found}.",)},
    )
    return Draft(sentence(scene.phrase(SHORTEN).format(limit=truth.word_limit, text=text)), truth)


TASKS = (
    Task("rename", "rewrite", 2.0, write_rename),
    Task("third_person", "rewrite", 2.0, write_third_person),
    Task("polite", "rewrite", 1.5, write_polite, few_shot=True),
    Task("question", "rewrite", 1.5, write_question, few_shot=True),
    Task("shorten", "rewrite", 1.5, write_shorten),
)
