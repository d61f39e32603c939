"""The reserved tokens: what separates documents and turns, and what no text can write.

Their ids come first, in this order, in every tokenizer trained here. Their names are markers for people and for other
servers; inside Sanbai they are ids put between encoded texts, never parsed out of a text.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

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
    """The id of each reserved token."""

    end_of_text: int
    """Stands before every document and every conversation; a model that writes it has ended a document."""
    pad: int
    """Fills rows; never a target, never attended to."""
    system: int
    """Opens a system message."""
    user: int
    """Opens a user message."""
    assistant: int
    """Opens an assistant message."""
    tool: int
    """Opens a tool's output."""
    end: int
    """Ends a message."""

    def all(self) -> frozenset[int]:
        """Return the reserved ids as a set."""
        return frozenset(astuple(self))

    def ends(self) -> frozenset[int]:
        """Return the ids that end an answer: of a message, and of a document."""
        return frozenset({self.end, self.end_of_text})


assert list(MARKERS) == [field.name for field in fields(ReservedIds)]
