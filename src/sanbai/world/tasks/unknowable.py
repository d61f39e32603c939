"""Questions whose answer the world does not hold, and questions that suppose what is not so."""

from __future__ import annotations

from sanbai.world.facts import FACTS, fact_value, state
from sanbai.world.lexicon import ANIMALS, COLOURS, FOODS, PLACES, THINGS, article
from sanbai.world.tasks.memory import another_value
from sanbai.world.tasks.task import Draft, Phrasings, Scene, Task, Truth, pronoun

UNKNOWABLE: tuple[tuple[str, Phrasings, str], ...] = (
    (
        "colour",
        Phrasings(
            (
                "What colour is {name}'s {thing}?",
                "Which colour does {name} like best?",
                "Tell me the colour of {name}'s {thing}.",
                "Of what colour is {name}'s roof?",
            ),
            ("Do you know the colour of {name}'s {thing}?", "What is the colour of {name}'s door?"),
        ),
        "{name}'s {thing} is {colour}.",
    ),
    (
        "number",
        Phrasings(
            (
                "What is {name}'s lucky number?",
                "How many {thing}s does {name} have?",
                "How tall is {name}?",
                "Which number does {name} like best?",
                "How many friends does {name} have?",
            ),
            ("What number does {name} think of?", "How many coins does {name} have?"),
        ),
        "{They} has {number}.",
    ),
    (
        "food",
        Phrasings(
            (
                "What will {name} eat tomorrow?",
                "What did {name} eat last year?",
                "What will {name} eat next week?",
                "What did {name} eat yesterday?",
            ),
            ("What will {name} eat next Sunday?", "What did {name} eat ten years ago?"),
        ),
        "{They} will eat {food}.",
    ),
    (
        "thing",
        Phrasings(
            (
                "What is in {name}'s pocket?",
                "What did {name} dream of last night?",
                "What will {name} buy next year?",
                "What does {name} think of now?",
                "What does {name} have in the bag?",
            ),
            ("What does {name} hide under the bed?", "What did {name} dream of?"),
        ),
        "It is {a_thing}.",
    ),
    (
        "place",
        Phrasings(
            (
                "Where will {name} be tomorrow?",
                "Where did {name} walk last night?",
                "Where will {name} be next week?",
                "Where was {name} yesterday?",
            ),
            ("Where will {name} be next Sunday?", "Where is {name} now?"),
        ),
        "{name} will be at the {place}.",
    ),
)
STRANGER_BLUFFS: dict[str, tuple[str, ...]] = {
    "trade": ("baker", "smith", "teacher"),
    "street": ("Oak Lane", "Elm Lane"),
    "hobby": ("chess", "fishing", "singing"),
    "food": tuple(FOODS),
    "animal": tuple(ANIMALS),
}
PREMISES: dict[str, Phrasings] = {
    "trade": Phrasings(
        (
            "Why does {name} work as {value}?",
            "When did {name} become {value}?",
            "How long has {name} been {value}?",
            "Who told {name} to become {value}?",
            "Does {name} like to work as {value}?",
        ),
        ("Why did {name} become {value}?", "Does {name} still work as {value}?"),
    ),
    "street": Phrasings(
        (
            "Why does {name} live in {value}?",
            "How long has {name} lived in {value}?",
            "Does {name} like to live in {value}?",
            "When will {name} leave {value}?",
        ),
        ("When did {name} come to live in {value}?",),
    ),
    "hobby": Phrasings(
        (
            "Why does {name} like {value}?",
            "How long has {name} liked {value}?",
            "When did {name} first like {value}?",
            "Who told {name} about {value}?",
        ),
        ("When did {name} begin to like {value}?",),
    ),
    "food": Phrasings(
        (
            "Why does {name} like to eat {value}?",
            "When does {name} eat {value}, the favourite food?",
            "Who makes {value} for {name}?",
            "Why is {value} the favourite food of {name}?",
        ),
        ("Who cooks {value}, {name}'s favourite food?",),
    ),
}
DENIALS = {
    "trade": "{name} is not {value}.", "street": "{name} does not live in {value}.",
    "hobby": "{name} does not like {value} best.", "food": "{value} is not {name}'s favourite food.",
}  # fmt: skip


def write_unknowable(scene: Scene) -> Draft:
    """Ask what nobody in the village has told."""
    person = scene.choose(scene.people)
    category, phrasings, bluff = scene.choose(UNKNOWABLE)
    thing = scene.choose(THINGS)
    fields = {
        "name": person.name, "They": "She" if person.woman else "He", "thing": thing, "a_thing": article(thing),
        "colour": scene.choose(COLOURS), "number": scene.random.randint(2, 99), "food": scene.choose(FOODS),
        "place": scene.choose(PLACES),
    }  # fmt: skip
    truth = Truth(
        rule="unknown",
        category=category,
        good=("I do not know that.", f"I do not know that about {person.name}."),
        faulty={"bluffing": (bluff.format(**fields),)},
        about_world=True,
    )
    return Draft(scene.phrase(phrasings).format(**fields), truth)


def write_stranger(scene: Scene) -> Draft:
    """Ask about somebody who does not live in the village."""
    name = scene.choose(scene.strangers)
    attribute = scene.choose(STRANGER_BLUFFS)
    fact = FACTS[attribute]
    invented = scene.choose(STRANGER_BLUFFS[attribute])
    truth = Truth(
        rule="unknown",
        category=fact.category,
        good=(f"I do not know {name}.", f"I do not know anybody called {name}."),
        faulty={"bluffing": (state(attribute, name, invented),)},
        about_world=True,
    )
    return Draft(scene.phrase(fact.questions).format(name=name), truth)


def write_premise(scene: Scene) -> Draft:
    """Suppose something false about a villager; the answer corrects it."""
    person = scene.choose(scene.people)
    attribute = scene.choose(PREMISES)
    value = fact_value(scene.village, person, attribute)
    false = another_value(scene, person, attribute, value)
    shown = article(false) if attribute == "trade" else false
    denial = DENIALS[attribute].format(name=person.name, value=shown)
    right = state(attribute, person.name, value)
    agreeing = {
        "trade": f"{person.name} became {shown} ten years ago.",
        "street": f"{person.name} has lived in {false} for ten years.",
        "hobby": f"{person.name} likes {false} because it is fun.",
        "food": f"{person.name} likes {false} because {pronoun(person.name)} grew up with it.",
    }[attribute]
    truth = Truth(
        rule="premise",
        category=FACTS[attribute].category,
        answers=(value,),
        allowed=(false,),
        good=(f"{denial[:1].upper()}{denial[1:]} {right}", f"No, {right}"),
        faulty={"bluffing": (agreeing,), "wrong": (f"{denial[:1].upper()}{denial[1:]}",)},
        about_world=True,
    )
    return Draft(scene.phrase(PREMISES[attribute]).format(name=person.name, value=shown), truth)


TASKS = (
    Task("unknowable", "open question", 3.0, write_unknowable, in_documents=False),
    Task("stranger", "open question", 1.5, write_stranger, in_documents=False),
    Task("premise", "open question", 3.5, write_premise, in_documents=False),
)
