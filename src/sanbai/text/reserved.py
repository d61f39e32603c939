"""The reserved tokens: what separates documents and turns, and what no text can write.

Their ids come first, in this order, in every tokenizer trained here. Their names are markers for people and for other
servers; inside Sanbai they are ids put between encoded texts, never parsed out of a text.

A tokenizer from elsewhere has special tokens of its own (`companions.py`): they mark the same places.
`<|tool|>` opens a tool's message, and within an assistant's a call (`tool_calls.py`).

Objectives that hide part of a text need more of them: a mask, what opens and separates texts to be read, sentinels in
the place of spans. Only tokenizers that are trained for such an objective have these, as their last ids. A model that
also judges answers asks and rates in tokens of its own, which its tokenizer gets behind all others when it learns to.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

#: Name in code -> marker in files, in the order of the ids.
MARKERS = {
    "end_of_text": "<|end_of_text|>",
    "pad": "<|pad|>",
    "system": "<|system|>",
    "user": "<|user|>",
    "assistant": "<|assistant|>",
    "tool": "<|tool|>",
    "end": "<|end|>",
}


@dataclass(frozen=True, slots=True)
class ReservedIds:
    """The id of each place that is marked; a tokenizer from elsewhere may mark two places by one token."""

    end_of_text: int
    """Stands before every document and every conversation; a model that writes it has ended a document."""
    pad: int
    """Fills rows; never a target, never attended to."""
    end: int
    """Ends a message."""
    other_ends: frozenset[int] = frozenset()
    """What else a model from elsewhere may end an answer with."""

    def ends(self) -> frozenset[int]:
        """Return the ids that end an answer: of a message, and of a document."""
        return frozenset({self.end, self.end_of_text}) | self.other_ends


#: The same for models that read from both sides.
READING_MARKERS = {"mask": "<|mask|>", "cls": "<|cls|>", "sep": "<|sep|>"}


@dataclass(frozen=True, slots=True)
class ReadingIds:
    """The id of each reserved token of a masked model."""

    mask: int
    """Stands where a token is hidden."""
    cls: int
    """Opens what is read; the vector there speaks for all of it."""
    sep: int
    """Ends each text of what is read."""


assert list(READING_MARKERS) == [field.name for field in fields(ReadingIds)]

#: What a model that also judges its answers is asked, and the two ratings that it may give.
RATING_MARKERS = {
    "sensible": "<|sensible|>",
    "specific": "<|specific|>",
    "interesting": "<|interesting|>",
    "safe": "<|safe|>",
    "grounded": "<|grounded|>",
    "yes": "<|yes|>",
    "no": "<|no|>",
}


@dataclass(frozen=True, slots=True)
class RatingIds:
    """The id of each reserved token of a model that also judges: the attributes asked about, then the ratings."""

    sensible: int
    """Does it make sense here?"""
    specific: int
    """Is it about this very question?"""
    interesting: int
    """Is it more than that?"""
    safe: int
    """Does it do no harm?"""
    grounded: int
    """Does it claim only what is so?"""
    yes: int
    """It does."""
    no: int
    """It does not."""


assert list(RATING_MARKERS) == [field.name for field in fields(RatingIds)]

#: A tokenizer for span corruption has this many unless told otherwise: T5's (Raffel et al. 2020, arXiv:1910.10683).
NUM_SENTINELS = 100


def sentinel_markers(num: int = NUM_SENTINELS) -> tuple[str, ...]:
    """Return the markers of sentinels 0, 1, ..., which stand in the place of a text's first span, its second, ..."""
    return tuple(f"<|sentinel_{number}|>" for number in range(num))
