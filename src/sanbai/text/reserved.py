"""The reserved tokens: what separates documents and turns, and what no text can write.

Their ids come first, in this order, in every tokenizer trained here. Their names are markers for people and for other
servers; inside Sanbai they are ids put between encoded texts, never parsed out of a text.

A tokenizer from elsewhere has special tokens of its own (`companions.py`): they mark the same places.
"""

from __future__ import annotations

from dataclasses import dataclass

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
