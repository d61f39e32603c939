"""Rankings: one person's ordering of K answers to one prompt, with ties, and what they said of each answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from sanbai.data.conversations import Turn, read_messages
from sanbai.data.fields import (
    Row,
    read_identity,
    read_list,
    read_optional_text,
    read_text,
    read_whole_number,
)
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import read_rows

#: The scale of a rating: 1 is the worst, 7 the best (InstructGPT's labeling instructions).
LIKERT = range(1, 8)


@dataclass(frozen=True, slots=True)
class Rating:
    """What a person said of one answer on its own."""

    likert: int
    flags: tuple[str, ...] = ()

    def to_row(self) -> dict[str, Any]:
        """Return the rating as its JSON object."""
        return {"likert": self.likert, "flags": list(self.flags)}


@dataclass(frozen=True, slots=True)
class Ranking:
    """Answers in buckets, best bucket first; answers in one bucket are tied.

    `buckets` holds every index into `responses` exactly once. `ratings` is empty or has one entry an answer.
    """

    id: str
    messages: tuple[Turn, ...]
    responses: tuple[str, ...]
    buckets: tuple[tuple[int, ...], ...]
    labeler: str
    ratings: tuple[Rating, ...] = ()
    kind: str = ""
    round: int = 0

    def pairs(self) -> list[tuple[int, int]]:
        """Return (better, worse) for every strict preference; K answers without ties give K(K-1)/2."""
        return [
            (better, worse) for above, below in combinations(self.buckets, 2) for better in above for worse in below
        ]

    def to_row(self) -> dict[str, Any]:
        """Return the record as its JSON object."""
        return {
            "id": self.id,
            "messages": list(self.messages),
            "responses": list(self.responses),
            "buckets": [list(bucket) for bucket in self.buckets],
            "labeler": self.labeler,
            "ratings": [rating.to_row() for rating in self.ratings],
            "kind": self.kind,
            "round": self.round,
        }

    @classmethod
    def from_row(cls, row: Row, *, where: str) -> Ranking:
        """Check a JSON object.

        Raises:
            DataError: fewer than two answers, an answer named twice, never or out of range, a rating off the scale;
                `where` is named.
        """
        responses = read_list(row, "responses", where=where)
        for number, response in enumerate(responses):
            if not isinstance(response, str):
                raise DataError(f"{where}: responses[{number}]: found {type(response).__name__}, wanted text")
        if len(responses) < 2:
            raise DataError(f"{where}: found 1 response, wanted at least 2 to rank")
        return cls(
            id=read_identity(row, "id", where, where=where),
            messages=read_messages(row, where=where),
            responses=tuple(responses),
            buckets=read_buckets(row, len(responses), where=where),
            labeler=read_text(row, "labeler", where=where),
            ratings=_read_ratings(row, len(responses), where=where),
            kind=read_optional_text(row, "kind", "", where=where),
            round=read_whole_number(row, "round", 0, where=where),
        )


def read_buckets(row: Row, num_responses: int, *, where: str) -> tuple[tuple[int, ...], ...]:
    """Return the field `buckets`, checked to name every answer exactly once.

    Args:
        row: the JSON object.
        num_responses: number of answers that the buckets speak of.
        where: file and line, for the message.

    Raises:
        DataError: an empty bucket, or an answer named twice, never or out of range.
    """
    buckets: list[tuple[int, ...]] = []
    named: set[int] = set()
    for bucket in read_list(row, "buckets", where=where):
        if not isinstance(bucket, list) or not bucket:
            raise DataError(f"{where}: buckets: found {bucket!r}, wanted lists of answer numbers")
        for answer in bucket:
            if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < num_responses:
                raise DataError(f"{where}: buckets: found answer {answer!r}, wanted 0 to {num_responses - 1}")
            if answer in named:
                raise DataError(f"{where}: buckets: answer {answer} is named twice, wanted every answer exactly once")
            named.add(answer)
        buckets.append(tuple(bucket))
    if missing := sorted(set(range(num_responses)) - named):
        listed = ", ".join(map(str, missing))
        raise DataError(f"{where}: buckets: answer {listed} is missing, wanted every answer exactly once")
    return tuple(buckets)


def read_rankings(paths: Iterable[Path] | Path) -> Iterator[Ranking]:
    """Yield the rankings of one JSON Lines file or several.

    Raises:
        DataError: a file cannot be read or a row is no ranking; one line with file and line number.
    """
    for path in [paths] if isinstance(paths, Path) else paths:
        for number, row in read_rows(path):
            yield Ranking.from_row(row, where=f"{path}:{number}")


def _read_ratings(row: Row, num_responses: int, *, where: str) -> tuple[Rating, ...]:
    entries: Sequence[Any] = row.get("ratings") or []
    if not isinstance(entries, list) or len(entries) not in {0, num_responses}:
        found = len(entries) if isinstance(entries, list) else entries
        raise DataError(f"{where}: ratings: found {found!r}, wanted none or one for each of {num_responses} answers")
    ratings = []
    for number, entry in enumerate(entries):
        likert = entry.get("likert") if isinstance(entry, dict) else None
        if not isinstance(likert, int) or isinstance(likert, bool) or likert not in LIKERT:
            raise DataError(f"{where}: ratings[{number}]: found likert {likert!r}, wanted a whole number from 1 to 7")
        flags = entry.get("flags", [])
        if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
            raise DataError(f"{where}: ratings[{number}]: found flags {flags!r}, wanted a list of texts")
        ratings.append(Rating(likert, tuple(flags)))
    return tuple(ratings)
