"""What the village holds about each person, one attribute at a time: how it is stated, and how it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from sanbai.world.lexicon import article
from sanbai.world.tasks.task import Phrasings, sentence
from sanbai.world.village import Person, Village


@dataclass(frozen=True)
class Fact:
    """One attribute: templates over {name} and {value}."""

    attribute: str
    category: str
    statements: tuple[str, ...]
    questions: Phrasings


FACTS = {
    fact.attribute: fact
    for fact in (
        Fact(
            "trade",
            "trade",
            ("{name} is {value}.", "{name} works as {value}."),
            Phrasings(
                (
                    "What does {name} do?",
                    "What is {name}'s trade?",
                    "What work does {name} do?",
                    "Tell me {name}'s trade.",
                ),
                ("What is the trade of {name}?", "What is {name}'s work?"),
            ),
        ),
        Fact(
            "street",
            "street",
            ("{name} lives in {value}.", "{name}'s home is in {value}."),
            Phrasings(
                (
                    "Where does {name} live?",
                    "In which street does {name} live?",
                    "Where is {name}'s home?",
                    "Tell me where {name} lives.",
                ),
                ("Where is the home of {name}?", "Which street does {name} live in?"),
            ),
        ),
        Fact(
            "hobby",
            "hobby",
            ("{name} likes {value}.", "{name} loves {value}."),
            Phrasings(
                (
                    "What does {name} like to do?",
                    "What does {name} love to do?",
                    "What is {name}'s hobby?",
                    "Tell me what {name} likes.",
                ),
                ("What is the hobby of {name}?", "Which hobby does {name} have?"),
            ),
        ),
        Fact(
            "food",
            "food",
            ("{name} likes to eat {value}.", "{name}'s favourite food is {value}."),
            Phrasings(
                (
                    "What does {name} like to eat?",
                    "What is {name}'s favourite food?",
                    "Tell me {name}'s favourite food.",
                ),
                ("Which food does {name} like to eat?", "What is the favourite food of {name}?"),
            ),
        ),
        Fact(
            "animal",
            "animal",
            ("{name} has {value}.", "{name}'s animal is {value}."),
            Phrasings(
                ("What animal does {name} have?", "Which animal does {name} have?", "Tell me {name}'s animal."),
                ("What kind of animal does {name} have?", "What is {name}'s animal?"),
            ),
        ),
        *(
            Fact(
                relation,
                "person",
                ("{name}'s " + relation + " is {value}.", "{value} is {name}'s " + relation + "."),
                Phrasings(
                    (
                        "Who is {name}'s " + relation + "?",
                        "What is the name of {name}'s " + relation + "?",
                        "Tell me who {name}'s " + relation + " is.",
                        "Name the " + relation + " of {name}.",
                    ),
                    ("Who is the " + relation + " of {name}?", "Tell me the name of {name}'s " + relation + "."),
                ),
            )
            for relation in ("mother", "father", "wife", "husband")
        ),
    )
}


def fact_value(village: Village, person: Person, attribute: str) -> str:
    """Return the attribute's canonical value (`baker`, `Elm Lane`, `goat`, `Anna`), or nothing if there is none."""
    if attribute == "animal":
        return person.animal.kind if person.animal else ""
    if attribute in {"mother", "father", "wife", "husband"}:
        return next(iter(village.relatives(person, attribute)), "")
    return str(getattr(person, attribute))


def written_value(attribute: str, value: str) -> str:
    """Return the value as a statement writes it: trades and animals with their article."""
    return article(value) if attribute in {"trade", "animal"} else value


def state(attribute: str, name: str, value: str, *, template: int = 0) -> str:
    """Return one statement of the fact; templates are numbered and wrap around."""
    statements = FACTS[attribute].statements
    return sentence(statements[template % len(statements)].format(name=name, value=written_value(attribute, value)))


def state_with_pronoun(attribute: str, person: Person, value: str) -> str:
    """Return the first statement of the fact about `she` or `he`."""
    statement = FACTS[attribute].statements[0]
    subject = person.possessive if statement.startswith("{name}'s") else person.pronoun
    statement = statement.replace("{name}'s", "{name}")
    return sentence(statement.format(name=subject, value=written_value(attribute, value)))
