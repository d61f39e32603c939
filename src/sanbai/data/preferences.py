"""Human preference pairs of other projects, read as rankings of two answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sanbai.data.conversations import Turn, read_prompt_fields
from sanbai.data.fields import Row, read_identity, read_text
from sanbai.data.rankings import Ranking
from sanbai.data.sources import find_files
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import read_rows
from sanbai.foundation.recipe import RecipeSection

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class PreferenceSource(RecipeSection):
    """Files of compared pairs and how to read them; paths are relative to the data folder."""

    path: str = Field(min_length=1)
    """A file or a glob of `.jsonl` files, plain, `.gz` or `.zst`."""
    layout: Literal["ranking", "chosen", "transcript", "label"] = "ranking"
    """`ranking`: our own. `chosen`: a prompt and two answers, the better one in its own field. `transcript`: two whole
    dialogues with "Human:" and "Assistant:" that differ in the last answer. `label`: two answers and a verdict."""
    prompt_fields: tuple[str, ...] = Field(default=("prompt",), min_length=1)
    """In `chosen` and `label`: the fields of the prompt, joined by a blank line; empty ones are left out."""
    chosen_field: str = "chosen"
    """In `chosen` and `transcript`: the better one."""
    rejected_field: str = "rejected"
    """In `chosen` and `transcript`: the worse one."""
    response_fields: tuple[str, str] = ("response1", "response2")
    """In `label`: the two answers."""
    label_fields: tuple[str, ...] = Field(default=("label",), min_length=1)
    """In `label`: the verdicts; several people's are settled by majority."""
    labels: tuple[int, int, int] = (1, 2, 0)
    """In `label`: the values that mean the first is better, the second is better, a tie."""
    labeler: str = Field(default="unknown", min_length=1)
    """Whom to name as the labeler."""


def read_preferences(folder: Path, sources: Iterable[PreferenceSource]) -> Iterator[Ranking]:
    """Yield the rankings of the sources, in the order given, one a row.

    Left out, because they compare no two answers to one prompt: rows whose answers are equal, and transcripts that
    part before the last answer (3 of 1,828 in HH-RLHF's harmless test split).

    Raises:
        DataError: no such file, not UTF-8, or a row that does not fit its layout; one line with file and line number.
    """
    for source in sources:
        for path in find_files(folder, source.path):
            name = path.relative_to(folder).as_posix()
            for number, row in read_rows(path):
                ranking = _read(row, source, name, number, where=f"{path}:{number}")
                if ranking is not None and len(set(ranking.responses)) > 1:
                    yield ranking


def _read(row: Row, source: PreferenceSource, name: str, number: int, *, where: str) -> Ranking | None:
    if source.layout == "ranking":
        return Ranking.from_row(row, where=where)
    identity = read_identity(row, "id", f"{name}:{number}", where=where)
    buckets: tuple[tuple[int, ...], ...] = ((0,), (1,))
    if source.layout == "transcript":
        chosen = read_transcript(read_text(row, source.chosen_field, where=where), where=where)
        rejected = read_transcript(read_text(row, source.rejected_field, where=where), where=where)
        messages, responses = chosen[:-1], (chosen[-1]["content"], rejected[-1]["content"])
        if rejected[:-1] != messages:
            return None
        return Ranking(identity, tuple(messages), responses, buckets, source.labeler)
    prompt = read_prompt_fields(row, source.prompt_fields, where=where)
    fields = (source.chosen_field, source.rejected_field) if source.layout == "chosen" else source.response_fields
    first, second = (read_text(row, field, where=where) for field in fields)
    if source.layout == "label":
        buckets = _verdict([row.get(field) for field in source.label_fields], source, where=where)
    return Ranking(identity, ({"role": "user", "content": prompt},), (first, second), buckets, source.labeler)


def _verdict(found: list[Any], source: PreferenceSource, *, where: str) -> tuple[tuple[int, ...], ...]:
    """Return the buckets that most labels stand for; no majority is a tie."""
    first, second, tie = source.labels
    for label in found:
        if label not in {first, second, tie}:
            raise DataError(f"{where}: found label {label!r}, wanted one of {first}, {second}, {tie}")
    lead = found.count(first) - found.count(second)
    if max(found.count(first), found.count(second)) * 2 <= len(found) or lead == 0:
        return ((0, 1),)
    return ((0,), (1,)) if lead > 0 else ((1,), (0,))


def read_transcript(text: str, *, where: str) -> list[Turn]:
    """Return the turns of a dialogue written as "Human: ..." and "Assistant: ..." after blank lines.

    Raises:
        DataError: it does not start with a speaker, or does not end with the assistant.
    """
    parts = _SPEAKER.split(text.strip("\n"))
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [
        {"role": roles[speaker], "content": content.strip()}
        for speaker, content in zip(parts[1::2], parts[2::2], strict=True)
    ]
    if parts[0].strip() or len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise DataError(f"{where}: wanted a dialogue of 'Human:' and 'Assistant:' that ends with the assistant")
    return turns
