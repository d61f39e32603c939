"""Texts with a class each, single or in pairs: what a classifier learns from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from sanbai.data.fields import Row, read_identity, read_optional_text, read_text
from sanbai.data.sources import find_files
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import read_rows
from sanbai.foundation.recipe import RecipeSection


@dataclass(frozen=True, slots=True)
class LabeledText:
    """One text, or two that belong together, and its class; an empty second text is none."""

    id: str
    text: str
    label: str
    second: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the record as its JSON object."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Row, *, where: str) -> LabeledText:
        """Check a JSON object of our own format.

        Raises:
            DataError: a field is missing or not text; `where` is named.
        """
        return cls(
            id=read_identity(row, "id", where, where=where),
            text=read_text(row, "text", where=where),
            label=read_identity(row, "label", "", where=where),
            second=read_optional_text(row, "second", "", where=where),
        )


@dataclass(frozen=True, slots=True)
class LabeledSplits:
    """Texts to learn from, and texts that only measure."""

    train: list[LabeledText]
    heldout: list[LabeledText]


class LabeledSource(RecipeSection):
    """Files of labelled texts and how to read them; paths are relative to the data folder."""

    path: str = Field(min_length=1)
    """A file or a glob of `.jsonl` files, plain, `.gz` or `.zst`."""
    text_fields: tuple[str, ...] = Field(default=("text",), min_length=1, max_length=2)
    """The field of the text; of pairs, such as premise and hypothesis, both fields."""
    label_field: str = "label"
    """The field of the class: a text or a whole number."""


def read_labeled(folder: Path, sources: Iterable[LabeledSource]) -> Iterator[LabeledText]:
    """Yield the labelled texts of the sources, in the order given.

    Raises:
        DataError: no such file, not UTF-8, or a row without text or class; one line with file and line number.
    """
    for source in sources:
        for path in find_files(folder, source.path):
            name = path.relative_to(folder).as_posix()
            for number, row in read_rows(path):
                where = f"{path}:{number}"
                texts = [read_text(row, field, where=where) for field in source.text_fields]
                yield LabeledText(
                    id=read_identity(row, "id", f"{name}:{number}", where=where),
                    text=texts[0],
                    label=read_identity(row, source.label_field, "", where=where),
                    second=texts[1] if len(texts) == 2 else "",
                )


def classes_of(examples: Iterable[LabeledText]) -> tuple[str, ...]:
    """Return the classes that occur, sorted: their places are their numbers.

    Raises:
        DataError: fewer than two.
    """
    found = tuple(sorted({example.label for example in examples}))
    if len(found) < 2:
        raise DataError(f"labelled texts of {len(found)} class{'' if len(found) == 1 else 'es'}, wanted two or more")
    return found
