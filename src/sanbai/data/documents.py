"""Documents: text to read, one record each, from our own format or from files that name their fields otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sanbai.data.fields import Row, read_identity, read_optional_text, read_text
from sanbai.data.sources import find_files
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import read_lines, read_rows
from sanbai.foundation.recipe import RecipeSection


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where it comes from."""

    id: str
    text: str
    source: str = ""
    licence: str = ""
    language: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the record as its JSON object."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Row, *, where: str) -> Document:
        """Check a JSON object of our own format.

        Raises:
            DataError: a field is missing or not text; `where` is named.
        """
        return cls(
            id=read_identity(row, "id", where, where=where),
            text=read_text(row, "text", where=where),
            source=read_optional_text(row, "source", "", where=where),
            licence=read_optional_text(row, "licence", "", where=where),
            language=read_optional_text(row, "language", "", where=where),
        )


class DocumentSource(RecipeSection):
    """Files of documents and how to read them; paths are relative to the data folder."""

    path: str = Field(min_length=1)
    """A file or a glob: `.jsonl` or `.txt`, plain, `.gz` or `.zst`."""
    text_fields: tuple[str, ...] = Field(default=("text",), min_length=1)
    """The fields that hold the text; several are joined by a blank line."""
    id_field: str = "id"
    """The field that names the document; where it is absent, file and line do."""
    text_unit: Literal["file", "paragraph", "line"] = "file"
    """What one document of a `.txt` file is."""
    licence: str = "not stated"
    """The licence note of rows that carry none of their own; it enters the manifest."""
    language: str = Field(default="en", min_length=1)
    """The language of rows that carry none of their own, as a two-letter code."""


def read_documents(folder: Path, sources: Iterable[DocumentSource]) -> Iterator[Document]:
    """Yield the documents of the sources, in the order given; files of a glob in the order of their names.

    Raises:
        DataError: no such file, not UTF-8, or a row that is no document; one line with file and line number.
    """
    for source in sources:
        for path in find_files(folder, source.path):
            name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
            if ".jsonl" in path.suffixes:
                yield from _read_rows(path, name, source)
            elif ".txt" in path.suffixes:
                yield from _read_text(path, name, source)
            else:
                raise DataError(f"{path}: unknown kind of file; wanted .jsonl or .txt, plain, .gz or .zst")


def _read_rows(path: Path, name: str, source: DocumentSource) -> Iterator[Document]:
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        yield Document(
            id=read_identity(row, source.id_field, f"{name}:{number}", where=where),
            text="\n\n".join(read_text(row, field, where=where) for field in source.text_fields),
            source=read_optional_text(row, "source", name, where=where),
            licence=read_optional_text(row, "licence", source.licence, where=where),
            language=read_optional_text(row, "language", source.language, where=where),
        )


def _read_text(path: Path, name: str, source: DocumentSource) -> Iterator[Document]:
    unit: list[str] = []
    first = 1

    def document() -> Document:
        return Document(f"{name}:{first}", "\n".join(unit), name, source.licence, source.language)

    for number, line in read_lines(path):
        ends = source.text_unit == "line" or (source.text_unit == "paragraph" and not line.strip())
        if not (ends and not line.strip()):
            unit.append(line)
        if ends and unit:
            yield document()
            unit = []
        if ends:
            first = number + 1
    if unit:
        yield document()
