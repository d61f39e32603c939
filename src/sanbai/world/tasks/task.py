"""What a task is made of: a question, the truth that a program judges answers by, and where phrasings come from.

Every task draws from a `Scene`, which knows whether it writes for training or is held out: the scene then offers
only people, strangers and phrasings of that side.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from sanbai.world.names import FEMALE
from sanbai.world.village import Person, Village

Kind = Literal[
    "generation", "open question", "closed question", "brainstorming", "chat", "rewrite", "summarise", "classify",
    "extract", "other",
]  # fmt: skip
Rule = Literal[
    "value", "values", "number", "yes_no", "unknown", "premise", "sequence", "text", "mention", "story", "items",
    "refuse",
]  # fmt: skip
Fault = Literal["wrong", "unconstrained", "bluffing", "obeying"]
Message = dict[str, str]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Truth:
    """What the oracle knows about one prompt; which fields matter depends on the rule (see `oracle.py`)."""

    rule: Rule
    good: tuple[str, ...]
    """Perfect answers, in the few styles of a good labeler."""
    faulty: dict[Fault, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Plausible bad answers by the fault that they show."""
    answers: tuple[str, ...] = ()
    """The values, numbers or texts that a right answer says."""
    category: str = ""
    """The lexicon's category that the answer's values come from."""
    options: tuple[str, ...] = ()
    """The values to choose from, where the task narrows or replaces the category."""
    allowed: tuple[str, ...] = ()
    """Values of the category that may be named beside the answers, as the question names them."""
    required: tuple[str, ...] = ()
    """Words that the request asks for; `a|b` accepts either."""
    forbidden: tuple[str, ...] = ()
    """Words that break the request."""
    word_limit: int | None = None
    """The most words that the request allows."""
    num_items: int | None = None
    """How many items the request asks for."""
    about_world: bool = False
    """Whether claims about villagers are to be checked against the village (a passage may suppose otherwise)."""

    @property
    def budget(self) -> int:
        """Words that a full answer can need; more are needless."""
        return max(len(answer.split()) for answer in self.good) + 4


@dataclass(frozen=True)
class Draft:
    """A question with its truth, before form and split make a prompt of it; `before` holds earlier turns."""

    question: str
    truth: Truth
    before: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Phrasings:
    """Ways to say one thing: those that training sees, and those kept for evaluation."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """A village seen from one side of the split, with the generator that draws from it."""

    village: Village
    random: random.Random
    heldout: bool = False
    everybody: bool = False
    """Whether the split by people is off: documents tell of everybody, prompts of their own side alone."""

    @property
    def people(self) -> tuple[Person, ...]:
        """The villagers that this side may name."""
        if self.everybody:
            return self.village.people()
        return self.village.people("heldout" if self.heldout else "train")

    @property
    def strangers(self) -> tuple[str, ...]:
        """The names without a villager that this side may use."""
        if self.everybody:
            return self.village.strangers + self.village.heldout_strangers
        return self.village.heldout_strangers if self.heldout else self.village.strangers

    def phrase(self, phrasings: Phrasings) -> str:
        """Choose a way to say it."""
        return self.random.choice(phrasings.heldout if self.heldout else phrasings.train)

    def choose(self, values: Collection[Value]) -> Value:
        """Choose one value, or one key of a mapping."""
        return self.random.choice(_indexed(values))

    def sample(self, values: Collection[Value], number: int) -> list[Value]:
        """Choose distinct values, or keys of a mapping."""
        return self.random.sample(_indexed(values), number)

    def other(self, values: Collection[Value], *than: Value) -> Value:
        """Choose a value that is none of `than`."""
        return self.random.choice([value for value in values if value not in than])

    def can_name(self, name: str) -> bool:
        """Whether this side may name the villager or stranger."""
        return (
            self.everybody or (name in self.village.heldout or name in self.village.heldout_strangers) == self.heldout
        )

    def chance(self, probability: float) -> bool:
        """Draw yes with the given probability."""
        return self.random.random() < probability


@dataclass(frozen=True)
class Task:
    """One family of prompts: its InstructGPT kind, its share of the mix, and what writes it."""

    name: str
    kind: Kind
    share: float
    write: Callable[[Scene], Draft]
    few_shot: bool = False
    """Whether the question is short enough to come with two solved examples."""
    in_documents: bool = True
    """Whether exercises of this task appear in pretraining text."""


def _indexed(values: Collection[Value]) -> Sequence[Value]:
    return values if isinstance(values, Sequence) else tuple(values)


def pronoun(name: str) -> str:
    """Return she or he for any first name."""
    return "she" if name in FEMALE else "he"


def possessive(name: str) -> str:
    """Return her or his for any first name."""
    return "her" if name in FEMALE else "his"


def sentence(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]
