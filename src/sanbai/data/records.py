"""Writing records: whatever can say what its JSON object is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from sanbai.foundation.files import JsonlWriter


class Record(Protocol):
    """A document, conversation, ranking or prompt."""

    def to_row(self) -> dict[str, Any]:
        """Return the record as its JSON object."""


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records as JSON Lines, packed where the name ends in `.gz`, and return how many."""
    count = 0
    with JsonlWriter(path) as writer:
        for record in records:
            writer.write(record.to_row())
            count += 1
    return count
