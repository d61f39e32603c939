"""Short stories that must contain given words, and short letters with a given topic."""

from __future__ import annotations

import re

from sanbai.world.lexicon import ANIMALS, FOODS, PLACES, THINGS, article
from sanbai.world.tasks.reading import everyone
from sanbai.world.tasks.task import Draft, Phrasings, Scene, Task, Truth, possessive, pronoun, sentence

ASK_STORY = Phrasings(
    (
        "Write a short story with the words {words}.",
        "Tell me a short story with {words} in it.",
        "Write a story about {name} with the words {words}.",
        "Please write a short story about {name}. Use the words {words}.",
        "Make up a story that has {words} in it.",
        "I want a short story with the words {words}.",
    ),
    (
        "Please make up a short story that has the words {words}.",
        "A short story about {name}, please, with the words {words}.",
    ),
)
ASK_LETTER = Phrasings(
    (
        "Write a short letter from {hero} to {friend} about {topic}.",
        "Write to {friend} about {topic}. The letter is from {hero}.",
        "Write a letter about {topic}, from {hero} to {friend}.",
        "{hero} writes to {friend} about {topic}. Write this letter.",
        "Please write a letter for {hero}. It is to {friend} and about {topic}.",
    ),
    ("{hero} wants to write to {friend} about {topic}. Write the letter.",),
)
OPENINGS = (
    "One day {name} found {a_first} near the {place}.",
    "One morning {name} saw {a_first} at the {place}.",
    "{name} had {a_first} and took it to the {place}.",
)
MIDDLES = {
    "thing": ("Beside it lay {a}.", "Under it there was {a}.", "{They} also needed {a}.", "A friend gave {them} {a}."),
    "animal": (
        "Then {a} came out of the trees.",
        "{A} ran away with it.",
        "There {they} met {a}.",
        "{A} was sleeping there.",
    ),
    "food": (
        "{They} shared some {word} with a friend.",
        "Then {they} ate {word} under a tree.",
        "It smelled of {word}.",
    ),
}
TURNS = (
    "{They} laughed and told everybody about it.",
    "{They} did not know what to do.",
    "It was a secret of the old tower.",
    "{They} waited until the evening.",
    "Nobody had seen that before.",
)
ENDINGS = (
    "In the evening {they} went home and was happy.",
    "Then {they} went home and slept well.",
    "After that {they} came back every day.",
    "At last {they} gave it to {their} mother.",
    "And so the day had a good end.",
)
TOPICS = {
    "a lost {thing}": ("I lost my {thing} at the {place}.", "Have you seen it?", "Please help me to find it."),
    "a found {thing}": ("I found a {thing} at the {place}.", "Is it yours?", "Come and look at it."),
    "a walk to the {place}": (
        "I want to walk to the {place} on Sunday.",
        "Will you come with me?",
        "We will be back in the evening.",
    ),
    "some {food}": ("Thank you for the {food}.", "They were so good.", "I will bring you something too."),
}


def tell_story(scene: Scene, name: str, words: dict[str, str], *, place: str) -> str:
    """Write a story of four or five sentences that contains the words (word: category, a thing first)."""
    they = pronoun(name)
    them = "her" if they == "she" else "him"
    first, *rest = words
    told = [scene.choose(OPENINGS).format(name=name, a_first=article(first), place=place)]
    for word in rest:
        a = article(word)
        template = scene.choose(MIDDLES[words[word]])
        told.append(template.format(a=a, A=sentence(a), word=word, they=they, They=sentence(they), them=them))
    told.append(scene.choose(TURNS).format(They=sentence(they)))
    told.append(scene.choose(ENDINGS).format(they=they, their=possessive(name)))
    return " ".join(told)


def write_story(scene: Scene) -> Draft:
    """Ask for a story with two or three words."""
    first, second = scene.sample(THINGS, 2)
    words = {first: "thing"}
    extra = scene.choose((("thing", second), ("animal", scene.choose(ANIMALS)), ("food", scene.choose(FOODS))))
    words[extra[1]] = extra[0]
    if scene.chance(0.4):
        kind = "animal" if extra[0] != "animal" else "food"
        words[scene.choose(ANIMALS if kind == "animal" else FOODS)] = kind
    asked = list(words)
    scene.random.shuffle(asked)
    phrase = scene.phrase(ASK_STORY)
    name = scene.choose(everyone(scene))
    place = scene.choose(PLACES)
    good = tuple(tell_story(scene, name, words, place=place) for _ in range(2))
    missing = dict(list(words.items())[:-1])
    truth = Truth(
        rule="story",
        required=(*words, name) if "{name}" in phrase else tuple(words),
        good=good,
        faulty={"unconstrained": (tell_story(scene, name, missing, place=place),)},
    )
    listed = f"{', '.join(asked[:-1])} and {asked[-1]}"
    return Draft(phrase.format(words=listed, name=name), truth)


def write_letter(scene: Scene) -> Draft:
    """Ask for a letter from one to another about a topic."""
    hero, friend = scene.sample(everyone(scene), 2)
    topic, other_topic = scene.sample(TOPICS, 2)
    values = {"thing": scene.choose(THINGS), "place": scene.choose(PLACES), "food": scene.choose(FOODS)}

    def letter(about: str, greeted: str, signed: str) -> str:
        said, question, wish = (line.format(**values) for line in TOPICS[about])
        middle = scene.choose((f"{said} {question}", f"{said} {wish}", f"{said} {question} {wish}"))
        return f"Dear {greeted}, {middle} Yours, {signed}."

    filled = topic.format(**values)
    key = next(values[field] for field in values if f"{{{field}}}" in topic)
    plain = re.sub(r"^Dear \w+, ", "", letter(topic, friend, hero)).rsplit(" Yours", 1)[0]
    truth = Truth(
        rule="story",
        category="letter",
        answers=(friend, hero),
        required=(key,),
        good=tuple(letter(topic, friend, hero) for _ in range(2)),
        faulty={
            "unconstrained": (plain,),
            "wrong": (letter(other_topic, friend, hero) if key not in letter(other_topic, friend, hero) else plain,),
        },
    )
    return Draft(scene.phrase(ASK_LETTER).format(hero=hero, friend=friend, topic=filled), truth)


TASKS = (
    Task("story", "generation", 10.0, write_story),
    Task("letter", "generation", 5.0, write_letter),
)
