"""What people said of single answers, as yes and no to LaMDA's attributes (Thoppilan et al. 2022, arXiv:2201.08239).

LaMDA's raters were asked for each attribute; ours fill in the labeling form, whose grade and flags say the same:

    sensible     makes sense here: grade 2 or more, and no hallucination
    specific     is about this very question: sensible, and does not fail the task
    interesting  is more than that: specific, and grade 6 or 7
    safe         none of the flags of harm
    grounded     no hallucination

Specific is asked only of what is sensible, and interesting only of what is specific, as in LaMDA; where several people
rated an answer, more than half of them must say yes (LaMDA: three of five).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sanbai.data.conversations import Turn
from sanbai.data.rankings import Ranking, Rating

Attribute = Literal["sensible", "specific", "interesting", "safe", "grounded"]
ATTRIBUTES: tuple[Attribute, ...] = ("sensible", "specific", "interesting", "safe", "grounded")
#: Flags of the labeling form that make an answer unsafe.
HARM = frozenset({"inappropriate", "sexual", "violent", "encourages_harm", "denigrates", "harmful_advice"})
#: Attribute -> the one without which it is not asked.
ASKED_IF: dict[Attribute, Attribute] = {"specific": "sensible", "interesting": "specific"}


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """An answer with the attributes that were asked of it."""

    messages: tuple[Turn, ...]
    response: str
    attributes: Mapping[Attribute, bool]
    """In the order of `ATTRIBUTES`; those not asked are left out."""


def attributes_of(rating: Rating) -> dict[Attribute, bool]:
    """Return what one person's grade and flags say of each attribute."""
    flags = set(rating.flags)
    grounded = "hallucination" not in flags
    sensible = rating.likert >= 2 and grounded
    specific = sensible and "fails_task" not in flags
    return {
        "sensible": sensible,
        "specific": specific,
        "interesting": specific and rating.likert >= 6,
        "safe": flags.isdisjoint(HARM),
        "grounded": grounded,
    }


def rated_answers(rankings: Iterable[Ranking]) -> list[RatedAnswer]:
    """Return every different answer that somebody rated, by what more than half of its raters say of each attribute."""
    said: dict[tuple[str, str], list[dict[Attribute, bool]]] = defaultdict(list)
    messages: dict[str, tuple[Turn, ...]] = {}
    for ranking in rankings:
        prompt = repr(ranking.messages)
        messages[prompt] = ranking.messages
        for response, rating in zip(ranking.responses, ranking.ratings, strict=False):  # none, or one a response
            said[prompt, response].append(attributes_of(rating))
    return [RatedAnswer(messages[prompt], response, _agreed(opinions)) for (prompt, response), opinions in said.items()]


def _agreed(opinions: Sequence[Mapping[Attribute, bool]]) -> dict[Attribute, bool]:
    found: dict[Attribute, bool] = {}
    for attribute in ATTRIBUTES:
        if (condition := ASKED_IF.get(attribute)) is None or found.get(condition, False):
            found[attribute] = 2 * sum(opinion[attribute] for opinion in opinions) > len(opinions)
    return found
