"""Sums and differences below one hundred, bare and told as small stories."""

from __future__ import annotations

from sanbai.world.lexicon import THINGS, counted, plural
from sanbai.world.tasks.reading import everyone
from sanbai.world.tasks.task import Draft, Phrasings, Scene, Task, Truth, pronoun, sentence

SUMS = Phrasings(
    (
        "What is {a} {sign} {b}?",
        "How much is {a} {sign} {b}?",
        "{a} {sign} {b} = ?",
        "Calculate {a} {sign} {b}.",
        "What do I get from {a} {sign} {b}?",
        "Tell me {a} {sign} {b}.",
    ),
    ("What does {a} {sign} {b} make?", "Work out {a} {sign} {b}."),
)
MORE = Phrasings(
    (
        "How many {things} does {name} have now?",
        "How many {things} are there now?",
        "Now {name} has how many {things}?",
        "What is the number of {name}'s {things} now?",
    ),
    ("What number of {things} does {name} have now?",),
)


def draw_terms(scene: Scene) -> tuple[int, int, str]:
    """Draw two terms and a sign: mostly one digit each, sometimes two digits, never below 0 or above 99."""
    level = scene.random.random()
    if level < 0.65:
        a, b = scene.random.randint(1, 9), scene.random.randint(1, 9)
    elif level < 0.9:
        a, b = scene.random.randint(10, 49), scene.random.randint(1, 9)
    else:
        a, b = scene.random.randint(10, 49), scene.random.randint(10, 49)
    if scene.chance(0.35):
        return max(a, b), min(a, b), "-"
    return a, b, "+"


def total(a: int, b: int, sign: str) -> int:
    """Return a + b or a - b."""
    return a + b if sign == "+" else a - b


def write_sum(scene: Scene) -> Draft:
    """A bare sum or difference."""
    a, b, sign = draw_terms(scene)
    answer = total(a, b, sign)
    wrong = max(0, answer + scene.choose((-10, -2, -1, 1, 2, 10)))
    wrong = wrong if wrong != answer else answer + 1
    truth = Truth(
        rule="number",
        category="number",
        answers=(str(answer),),
        good=(f"{a} {sign} {b} = {answer}.", f"The answer is {answer}."),
        faulty={"wrong": (f"{a} {sign} {b} = {wrong}.",)},
    )
    return Draft(scene.phrase(SUMS).format(a=a, b=b, sign=sign), truth)


def write_sum_story(scene: Scene) -> Draft:
    """A sum of one-digit numbers told as getting or giving things."""
    name, friend = scene.sample(everyone(scene), 2)
    thing = scene.choose(THINGS)
    a, b, gives = scene.random.randint(2, 9), scene.random.randint(1, 9), scene.chance(0.4)
    if gives:
        a, b = max(a, b) + 1, min(a, b)
    answer = a - b if gives else a + b
    they = sentence(pronoun(name))
    change = f"{they} gives {b} to {friend}." if gives else f"{friend} gives {b} more to {pronoun_object(name)}."
    wrong = a + b if gives else abs(a - b)
    truth = Truth(
        rule="number",
        category="number",
        answers=(str(answer),),
        good=(f"{name} has {counted(answer, thing)} now.", f"{they} has {counted(answer, thing)} now."),
        faulty={"wrong": (f"{name} has {counted(wrong, thing)} now.",)},
    )
    question = scene.phrase(MORE).format(things=plural(thing), name=name)
    return Draft(f"{name} has {counted(a, thing)}. {change} {question}", truth)


def pronoun_object(name: str) -> str:
    """Return her or him for any first name."""
    return "her" if pronoun(name) == "she" else "him"


TASKS = (
    Task("sum", "open question", 3.0, write_sum, few_shot=True),
    Task("sum_story", "closed question", 1.5, write_sum_story),
)
