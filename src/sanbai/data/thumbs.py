"""Thumbs: what a person thought of one answer in the chat, with no other answer beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanbai.data.conversations import Turn, read_messages
from sanbai.data.fields import Row, read_identity, read_text, read_whole_number
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import read_rows


@dataclass(frozen=True, slots=True)
class ThumbedAnswer:
    """An answer that somebody gave a thumb."""

    id: str
    messages: tuple[Turn, ...]
    response: str
    value: int
    """1 is up, -1 down."""
    finished: bool
    """Whether the answer ended by itself; a stop or a limit cut the others off."""
    labeler: str

    def to_row(self) -> dict[str, Any]:
        """Return the record as its JSON object."""
        return {
            "id": self.id,
            "messages": list(self.messages),
            "response": self.response,
            "value": self.value,
            "finished": self.finished,
            "labeler": self.labeler,
        }

    @classmethod
    def from_row(cls, row: Row, *, where: str) -> ThumbedAnswer:
        """Check a JSON object.

        Raises:
            DataError: a field is missing or of another kind, or a value other than 1 and -1; `where` is named.
        """
        value, finished = read_whole_number(row, "value", 0, where=where), row.get("finished")
        if value not in {1, -1}:
            raise DataError(f"{where}: field 'value': found {value}, wanted 1 or -1")
        if not isinstance(finished, bool):
            raise DataError(f"{where}: field 'finished': found {finished!r}, wanted true or false")
        return cls(
            id=read_identity(row, "id", where, where=where),
            messages=read_messages(row, where=where),
            response=read_text(row, "response", where=where),
            value=value,
            finished=finished,
            labeler=read_text(row, "labeler", where=where),
        )


def read_thumbs(path: Path) -> Iterator[ThumbedAnswer]:
    """Yield the thumbs of a JSON Lines file.

    Raises:
        DataError: the file cannot be read or a row is no thumb; one line with file and line number.
    """
    for number, row in read_rows(path):
        yield ThumbedAnswer.from_row(row, where=f"{path}:{number}")
