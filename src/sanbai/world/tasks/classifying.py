"""Classification: the feeling of a letter, the group of a word, the kind of a sentence."""

from __future__ import annotations

from sanbai.world.lexicon import ANIMALS, CLOTHES, FOODS, HOBBIES, PLACES, THINGS, TRADES, article
from sanbai.world.tasks.reading import everyone
from sanbai.world.tasks.task import Draft, Phrasings, Scene, Task, Truth, sentence

FEELING_TEXTS = {
    "happy": (
        "My {animal} is well again.",
        "{name} came to see me and we laughed all day.",
        "I won the race at the {place}.",
        "I got a new {thing} from {name}.",
        "We sang and danced at the {place}.",
    ),
    "sad": (
        "My {animal} ran away and did not come back.",
        "I lost the {thing} of my mother.",
        "{name} has left the village for ever.",
        "I was alone and cried all day.",
        "Nobody came to the {place} with me.",
    ),
    "angry": (
        "{name} took my {thing} and did not say sorry.",
        "Somebody broke my {thing} again!",
        "I shouted at {name}.",
        "It is not fair! {name} lied to me.",
        "How dare they close the {place}!",
    ),
    "afraid": (
        "I heard a wolf near the {place}.",
        "It was dark and I could not move.",
        "There is something in the {place} at night.",
        "I ran home and locked the door.",
        "My hands shake when I see the {place}.",
    ),
}
FEELING = Phrasings(
    (
        "Is this letter happy, sad, angry or afraid? {text}",
        "{text}\nHow does the writer feel: happy, sad, angry or afraid?",
        "Which feeling is in this letter, happy, sad, angry or afraid? {text}",
        "{text}\nIs the writer happy, sad, angry or afraid?",
        "{text} Choose one: happy, sad, angry or afraid.",
        "Happy, sad, angry or afraid: which one fits this letter? {text}",
    ),
    ("Choose happy, sad, angry or afraid for this letter: {text}", "{text}\nHappy, sad, angry or afraid?"),
)
GROUPS = {
    "animal": tuple(ANIMALS), "food": tuple(FOODS), "place": tuple(PLACES), "hobby": tuple(HOBBIES),
    "trade": tuple(TRADES), "thing": tuple(thing for thing in THINGS if thing not in CLOTHES),
}  # fmt: skip
GROUP = Phrasings(
    (
        "Which group does {word} belong to: {labels}?",
        "Is the word {word} in the group {labels}?",
        "Put {word} into one group: {labels}.",
        "Choose one of {labels} for {word}.",
        "What is {word}: {labels}?",
        "{word} is in which group: {labels}?",
    ),
    ("Choose the group of the word {word}: {labels}.", "{word}: {labels}?"),
)


def draw_feeling(scene: Scene) -> tuple[str, str]:
    """Return a letter of two sentences, of which neither names the writer's feeling, and the feeling."""
    label = scene.choose(FEELING_TEXTS)
    fields = {
        "animal": scene.choose(("dog", "cat", "goat", "horse", "rabbit", "cow")),
        "name": scene.choose(everyone(scene)),
        "place": scene.choose(("mill", "forest", "tower", "barn", "bridge", "lake", "church")),
        "thing": scene.choose(THINGS),
    }
    return " ".join(line.format(**fields) for line in scene.sample(FEELING_TEXTS[label], 2)), label


def write_feeling(scene: Scene) -> Draft:
    """Classify the feeling of a letter."""
    text, label = draw_feeling(scene)
    wrong = scene.other(tuple(FEELING_TEXTS), label)
    truth = Truth(
        rule="value",
        options=tuple(FEELING_TEXTS),
        answers=(label,),
        good=(f"The letter is {label}.", f"{sentence(label)}."),
        faulty={"wrong": (f"The letter is {wrong}.",)},
    )
    return Draft(scene.phrase(FEELING).format(text=text), truth)


def write_group(scene: Scene) -> Draft:
    """Put a word into one of three groups."""
    labels = scene.sample(GROUPS, 3)
    label = labels[0]
    scene.random.shuffle(labels)
    word = scene.choose(GROUPS[label])
    wrong = scene.other(labels, label)
    truth = Truth(
        rule="value",
        options=tuple(GROUPS),
        answers=(label,),
        good=(f"The word {word} is {article(label)}.", f"{sentence(label)}."),
        faulty={"wrong": (f"The word {word} is {article(wrong)}.",)},
    )
    listed = f"{', '.join(labels[:-1])} or {labels[-1]}"
    return Draft(scene.phrase(GROUP).format(word=word, labels=listed), truth)


TASKS = (
    Task("feeling", "classify", 4.0, write_feeling),
    Task("group", "classify", 3.5, write_group, few_shot=True),
)
