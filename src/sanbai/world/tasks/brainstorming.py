"""Lists of ideas of a given length: things to take, foods to buy, things to do, names for an animal."""

from __future__ import annotations

from sanbai.world.lexicon import ANIMALS, BIRDS, CLOTHES, FOODS, HOBBIES, OUTDOORS, PLACES, THINGS, TOOLS, article, join
from sanbai.world.names import PETS
from sanbai.world.tasks.reading import everyone
from sanbai.world.tasks.task import Draft, Phrasings, Scene, Task, Truth, sentence

TOPICS: dict[str, tuple[str, Phrasings, tuple[str, ...]]] = {
    "take": (
        "thing",
        Phrasings(
            (
                "Name {n} things to take to the {place}.",
                "What {n} things can I take to the {place}?",
                "I go to the {place}. List {n} things to take.",
                "Tell me {n} things that I need at the {place}.",
            ),
            ("Give me {n} things that I could take to the {place}.",),
        ),
        tuple(THINGS),
    ),
    "give": (
        "thing",
        Phrasings(
            (
                "Name {n} presents for {name}.",
                "I need {n} ideas for a present for {name}.",
                "What could I give to {name}? Tell me {n} things.",
                "List {n} presents that {name} could like.",
            ),
            ("Give me {n} ideas for a present for {name}.",),
        ),
        tuple(THINGS),
    ),
    "buy": (
        "food",
        Phrasings(
            (
                "Name {n} foods to buy at the market.",
                "What {n} foods can I cook for {name}?",
                "List {n} foods that I could eat.",
                "Tell me {n} foods for {name}.",
            ),
            ("Give me {n} foods that I could buy for {name}.",),
        ),
        tuple(FOODS),
    ),
    "do": (
        "hobby",
        Phrasings(
            (
                "Name {n} things to do with {name}.",
                "What {n} things can I do on {day}?",
                "I want to do something with {name}. Tell me {n} ideas.",
                "List {n} ideas for {day}.",
            ),
            ("Give me {n} ideas what to do with {name}.",),
        ),
        tuple(HOBBIES),
    ),
    "visit": (
        "place",
        Phrasings(
            (
                "Name {n} places to see with {name}.",
                "Which {n} places can I show to {name}?",
                "Tell me {n} places for a walk with {name}.",
                "List {n} places that {name} could see.",
            ),
            ("Give me {n} places that I could show to {name}.",),
        ),
        tuple(PLACES),
    ),
    "animals": (
        "animal",
        Phrasings(
            (
                "Name {n} animals for a story.",
                "What {n} animals can {name} draw?",
                "Tell me {n} animals for {name}.",
                "List {n} animals that I could draw.",
            ),
            ("Give me {n} animals that {name} could draw.",),
        ),
        tuple(ANIMALS),
    ),
    "birds": (
        "animal",
        Phrasings(
            ("Name {n} birds for {name}.", "Tell me {n} birds.", "List {n} birds that {name} could see."),
            ("Give me {n} birds for {name}.",),
        ),
        BIRDS,
    ),
    "tools": (
        "thing",
        Phrasings(
            (
                "Name {n} tools for {name}.",
                "What {n} tools does {name} need?",
                "Tell me {n} tools that I could buy.",
                "List {n} tools for {name}.",
            ),
            ("Give me {n} tools for {name}.",),
        ),
        TOOLS,
    ),
    "clothes": (
        "thing",
        Phrasings(
            ("Name {n} clothes for {name}.", "Tell me {n} clothes that I could wear.", "List {n} clothes for {name}."),
            ("Give me {n} clothes for {name}.",),
        ),
        CLOTHES,
    ),
    "pets": (
        "pet",
        Phrasings(
            (
                "Name {n} good names for a {pet}.",
                "How can I call my {pet}? Give {n} names.",
                "Tell me {n} names that I could give to a {pet}.",
                "List {n} names for my {pet}.",
            ),
            ("Give me {n} names for my {pet}.",),
        ),
        tuple(PETS),
    ),
}


def show(value: str) -> str:
    """Return the value as a list shows it: things and animals with an article, places with `the`."""
    if value in THINGS or value in ANIMALS:
        return article(value)
    return f"the {value}" if value in PLACES else value


def write_items(scene: Scene) -> Draft:
    """Ask for two to five ideas of one topic."""
    topic = scene.choose(TOPICS)
    category, phrasings, options = TOPICS[topic]
    number = scene.random.randint(2, min(5, len(options) - 1))

    def written(values: list[str], style: int) -> str:
        shown = [show(value) for value in values]
        return f"{sentence(join(shown))}." if style == 0 else f"You could choose {join(shown)}."

    others = scene.other([value for value in TOPICS if TOPICS[value][0] != category], topic)
    foreign = scene.sample(TOPICS[others][2], number - 1 or 1)
    mixed = [*scene.sample(options, 1), *foreign]
    miscounted = number + scene.choose((-1, 1)) if number + 1 <= len(options) else number - 1
    truth = Truth(
        rule="items",
        category=category,
        options=options,
        num_items=number,
        good=tuple(written(scene.sample(options, number), style) for style in (0, 0, 1)),
        faulty={"wrong": (written(mixed, 0),), "unconstrained": (written(scene.sample(options, miscounted), 0),)},
    )
    question = scene.phrase(phrasings).format(
        n=number, place=scene.choose(OUTDOORS), name=scene.choose(everyone(scene)),
        pet=scene.choose(("dog", "cat", "goat", "horse")), day=scene.choose(("Saturday", "Sunday", "Monday")),
    )  # fmt: skip
    return Draft(question, truth)


TASKS = (Task("items", "brainstorming", 9.0, write_items),)
