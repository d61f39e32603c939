"""Prompts: conversations that wait for an answer, with the kind of task they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanbai.data.conversations import Turn, read_messages
from sanbai.data.fields import Row, read_identity, read_text
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import read_rows

#: InstructGPT's ten kinds of use (Ouyang et al. 2022, arXiv:2203.02155, table 1).
KINDS = (
    "generation",
    "open question",
    "closed question",
    "brainstorming",
    "chat",
    "rewrite",
    "summarise",
    "classify",
    "extract",
    "other",
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages that end where the assistant should speak."""

    id: str
    messages: tuple[Turn, ...]
    kind: str

    def to_row(self) -> dict[str, Any]:
        """Return the record as its JSON object."""
        return {"id": self.id, "messages": list(self.messages), "kind": self.kind}

    @classmethod
    def from_row(cls, row: Row, *, where: str) -> Prompt:
        """Check a JSON object.

        Raises:
            DataError: a field is missing or wrong, the kind unknown, or the assistant has the last word already.
        """
        kind = read_text(row, "kind", where=where)
        if kind not in KINDS:
            raise DataError(f"{where}: unknown kind {kind!r}; wanted one of {', '.join(KINDS)}")
        messages = read_messages(row, where=where)
        if messages[-1]["role"] == "assistant":
            raise DataError(f"{where}: the last message is the assistant's, wanted one that it can answer")
        return cls(read_identity(row, "id", where, where=where), messages, kind)


def read_prompts(path: Path) -> Iterator[Prompt]:
    """Yield the prompts of a JSON Lines file.

    Raises:
        DataError: the file cannot be read or a row is no prompt; one line with file and line number.
    """
    for number, row in read_rows(path):
        yield Prompt.from_row(row, where=f"{path}:{number}")
