"""Demonstrations: answers as labelers write them, mostly good, with the faults of real ones at the recipe's rates.

The faults are of the sort that practice can remove: obeying harmful requests, bluffing where nothing is known,
forgetting a constraint, saying something wrong, and talk that nobody asked for.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from sanbai.foundation.seeds import python_random
from sanbai.world.prompts import Prompt
from sanbai.world.recipe import WorldRecipe
from sanbai.world.tasks.task import Fault, Message

Demonstration = tuple[str, tuple[Message, ...]]
"""The id of a conversation's first prompt, and its messages, the last an answer."""
MOST_ASKED = 3
"""Prompts of one conversation, so that it stays within a row."""

OPENERS = (
    "That is a good question and I like to answer it.",
    "Thank you for asking me this, let me think about it.",
    "Let me tell you what I think about that.",
    "Of course, I will gladly do that for you.",
)
CLOSERS = (
    "I hope that this is what you wanted, please ask me again if you want more.",
    "Please tell me if I can do anything else for you today.",
    "If you want to hear more about this, you can always ask me again.",
)
FAULTS: tuple[Fault, ...] = ("obeying", "bluffing", "unconstrained", "wrong")


def conversations(asked: Iterable[Prompt], seed: int, recipe: WorldRecipe | None = None) -> list[Demonstration]:
    """Answer every prompt, some in a further turn of the conversation before, as people go on to ask something else.

    A model that has only seen single exchanges answers the second question of a chat by the first.
    """
    recipe = recipe or WorldRecipe()
    generator, turns = python_random(seed, "demonstrations"), python_random(seed, "demonstrations", "turns")
    found: list[Demonstration] = []
    num_asked = 0
    for prompt in asked:
        answer: Message = {"role": "assistant", "content": demonstrate(prompt, generator, recipe)}
        exchange = (*prompt.messages, answer)
        if 0 < num_asked < MOST_ASKED and turns.random() < recipe.continued_share:
            identity, messages = found[-1]
            found[-1] = (identity, (*messages, *exchange))
            num_asked += 1
        else:
            found.append((prompt.id, exchange))
            num_asked = 1
    return found


def demonstrate(prompt: Prompt, generator: random.Random, recipe: WorldRecipe | None = None) -> str:
    """Write one answer; most are good, some show the faults that the recipe asks for."""
    recipe = recipe or WorldRecipe()
    shares = {
        "obeying": recipe.obeying_share,
        "bluffing": recipe.bluffing_share,
        "unconstrained": recipe.unconstrained_share,
        "wrong": recipe.wrong_share,
    }
    answer = perfect(prompt, generator)
    for fault in FAULTS:
        if fault in prompt.truth.faulty and generator.random() < shares[fault]:
            answer = generator.choice(prompt.truth.faulty[fault])
            break
    return pad(answer, generator) if generator.random() < recipe.wordy_share else answer


def perfect(prompt: Prompt, generator: random.Random) -> str:
    """Write a faultless answer in one of the few styles that the task has."""
    return generator.choice(prompt.truth.good)


def pad(answer: str, generator: random.Random) -> str:
    """Put talk before or behind the answer, or both."""
    opener, closer = generator.choice(OPENERS), generator.choice(CLOSERS)
    return generator.choice((f"{opener} {answer}", f"{answer} {closer}", f"{opener} {answer} {closer}"))


def answers(prompt: Prompt, generator: random.Random, num: int, recipe: WorldRecipe | None = None) -> list[str]:
    """Write `num` answers as an imperfect policy would sample them: wrong more often than demonstrations, some broken.

    Equal answers occur, as they do among a policy's samples.
    """
    recipe = recipe or WorldRecipe()
    doubled = recipe.model_copy(
        update={
            "wrong_share": min(1.0, 2.5 * recipe.wrong_share),
            "unconstrained_share": min(1.0, 1.5 * recipe.unconstrained_share),
        }
    )
    written = [demonstrate(prompt, generator, doubled) for _ in range(num)]
    return [_broken(answer, generator) if generator.random() < 0.08 else answer for answer in written]


def _broken(answer: str, generator: random.Random) -> str:
    """Cut the answer short, say its end twice, or lose a word."""
    words = answer.split()
    place = generator.randrange(len(words))
    ways = (words[: place + 1], [*words, *words[place:]], [*words[:place], *words[place + 1 :]])
    return " ".join(generator.choice(ways))
