"""Outings: what one person did on one day, the small events that passages, letters, diaries and their questions share.

An outing is a handful of slots. Each slot has sentences (for the third and the first person), questions with
phrasings held out, and a category, so that one grammar gives passages, rewritings, summaries and answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from sanbai.world.lexicon import DAYS, FEELINGS, FOODS, PLACES, THINGS, WEATHER, article, counted, plural
from sanbai.world.tasks.task import Phrasings, Scene, possessive, pronoun, sentence


@dataclass(frozen=True)
class Outing:
    """One person's day."""

    hero: str
    day: str
    place: str
    friend: str
    meeting: str
    number: int
    bought: str
    found: str
    lost: str
    food: str
    weather: str
    feeling: str


@dataclass(frozen=True)
class Slot:
    """A part of an outing that sentences tell and questions ask for."""

    name: str
    category: str
    sentences: tuple[str, ...]
    """{I} subject (name, pronoun or I), {my} possessive, {was} the verb to be, and the outing's fields."""
    answer: str
    """The answer's template in the third person."""
    questions: Phrasings


SLOTS = {
    slot.name: slot
    for slot in (
        Slot(
            "place",
            "place",
            (
                "on {day} {I} went to the {place}.",
                "{I} went to the {place} on {day}.",
                "{I} walked to the {place} on {day}.",
            ),
            "{I} went to the {place}.",
            Phrasings(
                (
                    "Where did {hero} go?",
                    "To which place did {hero} go?",
                    "Where did {hero} go on {day}?",
                    "What place did {hero} go to?",
                    "Tell me where {hero} went.",
                ),
                ("Which place did {hero} go to?", "On {day}, where did {hero} go?"),
            ),
        ),
        Slot(
            "day",
            "day",
            (),
            "{I} went on {day}.",
            Phrasings(
                (
                    "When did {hero} go to the {place}?",
                    "On which day did {hero} go to the {place}?",
                    "Tell me when {hero} went to the {place}.",
                    "{hero} went to the {place} on which day?",
                ),
                ("Which day did {hero} go to the {place}?", "On what day did {hero} go to the {place}?"),
            ),
        ),
        Slot(
            "friend",
            "person",
            (
                "{I} met {friend} at the {meeting}.",
                "at the {meeting} {I} met {friend}.",
                "then {I} met {friend} at the {meeting}.",
            ),
            "{I} met {friend}.",
            Phrasings(
                (
                    "Who did {hero} meet?",
                    "Whom did {hero} meet at the {meeting}?",
                    "Tell me whom {hero} met.",
                    "{hero} met whom?",
                ),
                ("Who was it that {hero} met?", "At the {meeting}, who did {hero} meet?"),
            ),
        ),
        Slot(
            "meeting",
            "place",
            (),
            "{I} met {friend} at the {meeting}.",
            Phrasings(
                (
                    "Where did {hero} meet {friend}?",
                    "At which place did {hero} meet {friend}?",
                    "Tell me where {hero} met {friend}.",
                    "{hero} met {friend} at which place?",
                ),
                ("Which place did {hero} meet {friend} at?", "Where was it that {hero} met {friend}?"),
            ),
        ),
        Slot(
            "bought",
            "thing",
            ("{I} bought {goods}.", "there {I} bought {goods}.", "{I} bought {goods} there."),
            "{I} bought {goods}.",
            Phrasings(
                (
                    "What did {hero} buy?",
                    "Which things did {hero} buy?",
                    "Tell me what {hero} bought.",
                    "{hero} bought what?",
                ),
                ("What things did {hero} buy?",),
            ),
        ),
        Slot(
            "number",
            "number",
            (),
            "{I} bought {goods}.",
            Phrasings(
                (
                    "How many {wares} did {hero} buy?",
                    "What number of {wares} did {hero} buy?",
                    "Tell me how many {wares} {hero} bought.",
                    "{hero} bought how many {wares}?",
                ),
                ("How many {wares} was it that {hero} bought?",),
            ),
        ),
        Slot(
            "found",
            "thing",
            ("{I} found {a_found}.", "near a tree {I} found {a_found}.", "{I} found {a_found} on the road."),
            "{I} found {a_found}.",
            Phrasings(
                (
                    "What did {hero} find?",
                    "Which thing did {hero} find?",
                    "Tell me what {hero} found.",
                    "{hero} found what?",
                ),
                ("What thing did {hero} find?",),
            ),
        ),
        Slot(
            "lost",
            "thing",
            ("{I} lost {my} {lost}.", "on the way {I} lost {my} {lost}."),
            "{I} lost {my} {lost}.",
            Phrasings(
                (
                    "What did {hero} lose?",
                    "Which thing did {hero} lose?",
                    "Tell me what {hero} lost.",
                    "{hero} lost what?",
                ),
                ("What thing did {hero} lose?",),
            ),
        ),
        Slot(
            "food",
            "food",
            ("{I} ate {food}.", "in the evening {I} ate {food}.", "{I} ate {food} at home."),
            "{I} ate {food}.",
            Phrasings(
                ("What did {hero} eat?", "Which food did {hero} eat?", "Tell me what {hero} ate.", "{hero} ate what?"),
                ("What food did {hero} eat?",),
            ),
        ),
        Slot(
            "weather",
            "weather",
            ("the day was {weather}.", "it was a {weather} day."),
            "The day was {weather}.",
            Phrasings(
                (
                    "How was the weather?",
                    "What was the weather like?",
                    "Tell me about the weather.",
                    "What weather was it?",
                ),
                ("What kind of day was it?",),
            ),
        ),
        Slot(
            "feeling",
            "feeling",
            ("{I} was {feeling}.", "in the end {I} was {feeling}."),
            "{I} was {feeling}.",
            Phrasings(
                (
                    "How did {hero} feel?",
                    "How was {hero} in the end?",
                    "Tell me how {hero} felt.",
                    "What was the feeling of {hero}?",
                ),
                ("What did {hero} feel?",),
            ),
        ),
    )
}
TELLING = {
    "place": "place",
    "day": "place",
    "friend": "friend",
    "meeting": "friend",
    "bought": "bought",
    "number": "bought",
}
"""The slot whose sentence tells each asked slot; the others tell themselves."""
TOLD = tuple(name for name, slot in SLOTS.items() if slot.sentences and name != "place")


def draw_outing(scene: Scene, names: tuple[str, ...] | None = None) -> Outing:
    """Draw an outing of one of the names (the scene's people unless given) that meets another of them."""
    choices = names or tuple(person.name for person in scene.people)
    hero, friend = scene.sample(choices, 2)
    place, meeting = scene.sample(PLACES, 2)
    bought, found, lost = scene.sample(THINGS, 3)
    return Outing(
        hero=hero,
        day=scene.choose(DAYS),
        place=place,
        friend=friend,
        meeting=meeting,
        number=scene.random.randint(2, 9),
        bought=bought,
        found=found,
        lost=lost,
        food=scene.choose(FOODS),
        weather=scene.choose(WEATHER),
        feeling=scene.choose(FEELINGS),
    )


def _fields(outing: Outing, subject: str) -> dict[str, object]:
    first_person = subject == "I"
    return {
        **vars(outing),
        "I": subject,
        "my": "my" if first_person else possessive(outing.hero),
        "goods": counted(outing.number, outing.bought),
        "wares": plural(outing.bought),
        "a_found": article(outing.found),
    }


def tell_slot(outing: Outing, slot: str, *, subject: str, variant: int) -> str:
    """Return one sentence about the slot; variants wrap around, subject is a name, a pronoun or `I`."""
    sentences = SLOTS[slot].sentences
    return sentence(sentences[variant % len(sentences)].format(**_fields(outing, subject)))


def tell(outing: Outing, slots: tuple[str, ...], variants: tuple[int, ...], *, first_person: bool = False) -> str:
    """Return a passage: the hero by name (or `I`) in the first sentence that needs a subject, then the pronoun."""
    told = []
    named = False
    for slot, variant in zip(slots, variants, strict=True):
        subject = "I" if first_person else pronoun(outing.hero) if named else outing.hero
        told.append(tell_slot(outing, slot, subject=subject, variant=variant))
        named = named or slot != "weather"
    return " ".join(told)


def draw_slots(scene: Scene, number: int, *, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Choose `place` first and `number - 1` further slots in a natural order."""
    rest = scene.sample([slot for slot in TOLD if slot not in without], number - 1)
    return ("place", *sorted(rest, key="feeling".__eq__))


def draw_variants(scene: Scene, slots: tuple[str, ...]) -> tuple[int, ...]:
    """Choose a sentence variant for each slot."""
    return tuple(scene.random.randrange(3) for _ in slots)


def slot_value(outing: Outing, slot: str) -> str:
    """Return the slot's canonical value."""
    return str(getattr(outing, slot))


def answer_slot(outing: Outing, slot: str, *, named: bool = True) -> str:
    """Return the sentence that answers a question about the slot."""
    subject = outing.hero if named else pronoun(outing.hero)
    return sentence(SLOTS[slot].answer.format(**_fields(outing, subject)))


def ask_slot(scene: Scene, outing: Outing, slot: str) -> str:
    """Return a question for the slot."""
    return scene.phrase(SLOTS[slot].questions).format(**_fields(outing, outing.hero))
