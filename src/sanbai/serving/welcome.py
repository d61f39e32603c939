"""What greets a person in an empty chat; given by whoever starts the server, since it knows what the model learned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A question to click on: a short title and the whole prompt."""

    title: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """A greeting, and example questions that show what the model can and cannot do, in order."""

    greeting: str
    examples: tuple[Example, ...] = ()
