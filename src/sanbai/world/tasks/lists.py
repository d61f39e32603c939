"""Counting, sorting and extracting."""

from __future__ import annotations

from sanbai.world.lexicon import ANIMALS, FOODS, PLACES, THINGS, category, join
from sanbai.world.outings import draw_outing, draw_slots, draw_variants, tell
from sanbai.world.tasks.reading import everyone
from sanbai.world.tasks.task import Draft, Phrasings, Scene, Task, Truth, sentence

COUNT_ALL = Phrasings(
    (
        "How many words are in this list: {list}?",
        "Count the words: {list}.",
        "{list}: how many words are these?",
        "Tell me the number of words in this list: {list}.",
    ),
    ("How many words does this list have: {list}?",),
)
COUNT_SOME = Phrasings(
    (
        "How many {group} are in this list: {list}?",
        "Count the {group}: {list}.",
        "{list}: how many {group} are these?",
        "Tell me the number of {group} in this list: {list}.",
    ),
    ("How many {group} does this list have: {list}?",),
)
SORT_WORDS = Phrasings(
    (
        "Sort these words from A to Z: {list}.",
        "Put these words in the order of the alphabet: {list}.",
        "Order from A to Z: {list}.",
        "Which order from A to Z do these words have: {list}?",
    ),
    ("Bring these words into order from A to Z: {list}.",),
)
SORT_NUMBERS = Phrasings(
    (
        "Sort these numbers from small to large: {list}.",
        "Put these numbers in order: {list}.",
        "Order from small to large: {list}.",
        "Which order do these numbers have: {list}?",
    ),
    ("Bring these numbers into order from small to large: {list}.",),
)
REVERSE = Phrasings(
    (
        "Write these words backwards, the last one first: {list}.",
        "Turn this list around: {list}.",
        "Write this list from the last to the first: {list}.",
        "{list}. Give these words backwards.",
    ),
    ("Give this list from the last word to the first: {list}.",),
)
EXTRACT = Phrasings(
    (
        "Name all {group} in this text: {passage}",
        "List the {group} in the text.\n{passage}",
        "Which {group} are in this text? {passage}",
        "{passage}\nName the {group} in the text.",
        "{passage} Which {group} are there?",
        "Tell me the {group} that this text names: {passage}",
    ),
    ("Find the {group} in this text: {passage}", "{passage}\nWhich {group} does the text name?"),
)
GROUPS = {"animals": tuple(ANIMALS), "foods": tuple(FOODS), "places": tuple(PLACES), "things": tuple(THINGS)}


def write_count(scene: Scene) -> Draft:
    """Count the words of a list, or those of one group."""
    group, rest = scene.sample(GROUPS, 2)
    wanted = scene.sample(GROUPS[group], scene.random.randint(1, 4))
    others = scene.sample(GROUPS[rest], scene.random.randint(0, 3))
    words = [*wanted, *others]
    scene.random.shuffle(words)
    counts_all = scene.chance(0.4)
    number = len(words) if counts_all else len(wanted)
    noun = "words" if counts_all else group
    phrase = scene.phrase(COUNT_ALL if counts_all else COUNT_SOME)
    wrong = scene.other([number - 1, number + 1], 0)
    truth = Truth(
        rule="number",
        category="number",
        answers=(str(number),),
        good=(f"The list has {number} {noun}.", f"There are {number} {noun}."),
        faulty={"wrong": (f"The list has {wrong} {noun}.",)},
    )
    return Draft(phrase.format(list=", ".join(words), group=group), truth)


def _sequence(scene: Scene, phrasings: Phrasings, words: list[str], ordered: list[str]) -> Draft:
    mixed = list(ordered)
    while mixed == ordered:
        scene.random.shuffle(mixed)
    truth = Truth(
        rule="sequence",
        answers=tuple(ordered),
        good=(f"{', '.join(ordered)}.",),
        faulty={"wrong": (f"{', '.join(mixed)}.",)},
    )
    return Draft(scene.phrase(phrasings).format(list=", ".join(words)), truth)


def write_sort(scene: Scene) -> Draft:
    """Sort three to five words or numbers."""
    number = scene.random.randint(3, 5)
    if scene.chance(0.5):
        values = [str(value) for value in scene.sample(range(1, 100), number)]
        return _sequence(scene, SORT_NUMBERS, values, sorted(values, key=int))
    initials: dict[str, str] = {}
    for word in scene.sample((*THINGS, *ANIMALS, *FOODS), 12):
        initials.setdefault(word[0], word)
    words = list(initials.values())[:number]
    return _sequence(scene, SORT_WORDS, words, sorted(words))


def write_reverse(scene: Scene) -> Draft:
    """Turn a list of three to five words around."""
    words = scene.sample((*THINGS, *ANIMALS), scene.random.randint(3, 5))
    return _sequence(scene, REVERSE, words, words[::-1])


def write_extract(scene: Scene) -> Draft:
    """Extract the people, places or things that a passage names."""
    outing = draw_outing(scene, everyone(scene))
    slots = draw_slots(scene, scene.random.randint(2, 4))
    slots = slots if "friend" in slots else (slots[0], "friend", *slots[2:])
    group = scene.choose(("people", "people", "places", "places", "things"))
    if group == "things" and not {"bought", "found", "lost"} & set(slots):
        slots = (*slots[:2], "found")
    values = {
        "people": [outing.hero, outing.friend],
        "places": [outing.place, outing.meeting],
        "things": [getattr(outing, slot) for slot in slots if slot in {"bought", "found", "lost"}],
    }[group]
    kind = {"people": "person", "places": "place", "things": "thing"}[group]
    wrong = scene.other(everyone(scene) if kind == "person" else tuple(category(kind).values()), *values)
    truth = Truth(
        rule="values",
        category=kind,
        answers=tuple(values),
        good=(f"{sentence(join(values))}.", f"The text names {join(values)}."),
        faulty={"wrong": (f"{sentence(join([values[0], wrong]))}.",)},
    )
    passage = tell(outing, slots, draw_variants(scene, slots))
    return Draft(scene.phrase(EXTRACT).format(group=group, passage=passage), truth)


TASKS = (
    Task("count", "closed question", 2.0, write_count, few_shot=True),
    Task("sort", "other", 2.0, write_sort, few_shot=True),
    Task("reverse", "rewrite", 1.5, write_reverse, few_shot=True),
    Task("extract", "extract", 7.0, write_extract),
)
