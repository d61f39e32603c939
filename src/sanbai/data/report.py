"""What cleaning did: counts and bytes of every rule, so that a wrong threshold shows as a number."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

#: The rules that drop whole documents, in the order in which they are tried.
RULES = ("length", "symbols", "insult", "repetition", "gibberish", "duplicate", "near_duplicate")


@dataclass(slots=True)
class Tally:
    """Documents, and bytes of their UTF-8."""

    documents: int = 0
    bytes: int = 0

    def add(self, text: str) -> None:
        """Count one document."""
        self.documents += 1
        self.bytes += len(text.encode())


@dataclass(slots=True)
class CleaningReport:
    """Filled by `clean`, written as `report.json`."""

    read: Tally = field(default_factory=Tally)
    """All documents, as they came."""
    dropped: dict[str, Tally] = field(default_factory=lambda: {rule: Tally() for rule in RULES})
    """Whole documents, under the first rule that they broke; bytes as they stood then."""
    boilerplate_lines: int = 0
    """Lines removed."""
    masked_emails: int = 0
    """E-mail addresses masked."""
    masked_telephones: int = 0
    """Telephone numbers masked."""
    tagged_insults: int = 0
    """Documents with a word of the insult list."""
    resting_rules: list[str] = field(default_factory=list)
    """Rules that did not apply, and why."""
    train: Tally = field(default_factory=Tally)
    """What is kept to train on."""
    validation: Tally = field(default_factory=Tally)
    """What is kept and held out."""

    def to_row(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return asdict(self)
