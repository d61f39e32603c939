"""Conversations: turns between roles; as demonstrations, what the assistant says is to be imitated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sanbai.data.fields import Row, read_identity, read_list, read_optional_text, read_text
from sanbai.data.sources import find_files
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import read_rows
from sanbai.foundation.recipe import RecipeSection
from sanbai.text.chat_markup import canonical_role

#: One turn: role and content. Kept as JSON has it.
Turn = dict[str, str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns from the oldest to the newest."""

    id: str
    messages: tuple[Turn, ...]
    source: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the record as its JSON object."""
        return {"id": self.id, "messages": list(self.messages), "source": self.source}

    @classmethod
    def from_row(cls, row: Row, *, where: str) -> Conversation:
        """Check a JSON object of our own format.

        Raises:
            DataError: a field is missing or wrong, a role unknown; `where` is named.
        """
        return cls(
            id=read_identity(row, "id", where, where=where),
            messages=read_messages(row, where=where),
            source=read_optional_text(row, "source", "", where=where),
        )


class ConversationSource(RecipeSection):
    """Files of demonstrations and how to read them; paths are relative to the data folder."""

    path: str = Field(min_length=1)
    """A file or a glob of `.jsonl` files, plain, `.gz` or `.zst`."""
    layout: Literal["messages", "pair"] = "messages"
    """`messages`: a list of turns with role and content. `pair`: fields for a question and for its answer."""
    prompt_fields: tuple[str, ...] = Field(default=("instruction",), min_length=1)
    """In the layout `pair`: the fields of the question, joined by a blank line; empty ones are left out."""
    response_field: str = "response"
    """In the layout `pair`: the field of the answer."""
    leave_out_phrases: tuple[str, ...] = ()
    """Rows are left out when their first turn holds one of these, in any case: say, questions on a text that the file
    does not hold."""


def read_messages(row: Row, *, where: str) -> tuple[Turn, ...]:
    """Return the field `messages`, checked; `developer` becomes `system`.

    Raises:
        DataError: no turn, a turn without role or content, or an unknown role.
    """
    turns = []
    for number, turn in enumerate(read_list(row, "messages", where=where)):
        place = f"{where}: messages[{number}]"
        if not isinstance(turn, dict):
            raise DataError(f"{place}: found {type(turn).__name__}, wanted an object with role and content")
        try:
            role = canonical_role(read_text(turn, "role", where=place))
        except DataError as error:
            raise error if str(error).startswith(place) else DataError(f"{place}: {error}") from None
        turns.append({"role": role, "content": read_text(turn, "content", where=place)})
    return tuple(turns)


def read_prompt_fields(row: Row, fields: Sequence[str], *, where: str) -> str:
    """Return the texts of several fields joined by a blank line, empty ones left out.

    Raises:
        DataError: a field is missing or not text, or all are empty.
    """
    prompt = "\n\n".join(filter(None, (read_text(row, field, where=where) for field in fields)))
    if not prompt:
        raise DataError(f"{where}: fields {', '.join(fields)} are empty, wanted a prompt")
    return prompt


def read_conversations(folder: Path, sources: Iterable[ConversationSource]) -> Iterator[Conversation]:
    """Yield the conversations of the sources, in the order given.

    Raises:
        DataError: no such file, not UTF-8, or a row that is no conversation; one line with file and line number.
    """
    for source in sources:
        for path in find_files(folder, source.path):
            name = path.relative_to(folder).as_posix()
            for number, row in read_rows(path):
                where = f"{path}:{number}"
                identity = read_identity(row, "id", f"{name}:{number}", where=where)
                if source.layout == "messages":
                    messages = read_messages(row, where=where)
                else:
                    question = read_prompt_fields(row, source.prompt_fields, where=where)
                    answer = read_text(row, source.response_field, where=where)
                    messages = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
                opening = messages[0]["content"].lower()
                if not any(phrase.lower() in opening for phrase in source.leave_out_phrases):
                    yield Conversation(identity, messages, name)
