"""Instruction mixtures: many tasks, each said in several ways, as conversations to imitate (FLAN).

Templates turn a task's rows into questions and answers (Wei et al. 2021, arXiv:2109.01652, ten a task). Tasks are drawn
in proportion to their number of examples, none counted beyond a cap, so that the large ones do not drown the others
(Raffel et al. 2019, arXiv:1910.10683, section 3.5.2; FLAN's cap is 3000). Example number i follows from seed and i
alone.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sanbai.data.conversations import Conversation
from sanbai.data.fields import read_identity
from sanbai.data.sources import find_files
from sanbai.foundation.errors import DataError, RecipeError
from sanbai.foundation.files import read_rows
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import numpy_generator

#: Two texts with `{field}` in them: what is asked, and what is answered.
Template = tuple[str, str]


@dataclass(frozen=True, slots=True)
class InstructionTask:
    """One task: its rows, and the ways to ask for and to answer one; at least one of each."""

    name: str
    rows: Sequence[Mapping[str, str]]
    templates: Sequence[Template]


class InstructionSource(RecipeSection):
    """Files of one task and the ways to say it; paths are relative to the data folder."""

    name: str = Field(min_length=1)
    """The task; tasks have different names."""
    path: str = Field(min_length=1)
    """A file or a glob of `.jsonl` files, plain, `.gz` or `.zst`."""
    templates: tuple[Template, ...] = Field(min_length=1)
    """Pairs of question and answer; `{field}` stands for a field of the row. FLAN wrote ten a task, some of them turned
    round."""


def mixing_rates(sizes: Sequence[int], *, cap: int, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the share of each task: min(size, cap) ^ (1 / temperature), divided by the sum over tasks.

    Args:
        sizes: examples of each task, at least 1.
        cap: the most examples that count; T5's artificial limit K.
        temperature: 1 for proportions, more to bring tasks closer together.
    """
    weights = np.minimum(np.asarray(sizes, dtype=np.float64), cap) ** (1 / temperature)
    return weights / weights.sum()  # type: ignore[no-any-return]


class InstructionMixture:
    """Conversations 0, 1, 2, ... of a mixture without end."""

    def __init__(self, tasks: Sequence[InstructionTask], *, cap: int, seed: int, temperature: float = 1.0) -> None:
        """Take the tasks.

        Args:
            tasks: at least one.
            cap: see `mixing_rates`.
            seed: of the draw.
            temperature: see `mixing_rates`.

        Raises:
            DataError: no task, or one without rows.
        """
        if not tasks or not all(task.rows for task in tasks):
            empty = next((task.name for task in tasks if not task.rows), "the mixture")
            raise DataError(f"instructions: {empty} holds no example; wanted one or more a task")
        self.tasks = tuple(tasks)
        self.rates = mixing_rates([len(task.rows) for task in tasks], cap=cap, temperature=temperature)
        self._bounds = np.cumsum(self.rates)
        self._seed = seed

    def conversation(self, index: int) -> Conversation:
        """Return one question and its answer."""
        generator = numpy_generator(self._seed, "example", index)
        place = min(int(np.searchsorted(self._bounds, generator.random(), side="right")), len(self.tasks) - 1)
        task = self.tasks[place]
        row = task.rows[int(generator.integers(len(task.rows)))]
        question, answer = task.templates[int(generator.integers(len(task.templates)))]
        messages = (
            {"role": "user", "content": _fill(question, row)},
            {"role": "assistant", "content": _fill(answer, row)},
        )
        return Conversation(f"{task.name}:{index}", messages, task.name)


def read_instruction_tasks(folder: Path, sources: Iterable[InstructionSource]) -> list[InstructionTask]:
    """Return the tasks of the sources, each field of a template found in each row.

    Raises:
        DataError: no such file, not UTF-8, or a row without a field that a template names.
        RecipeError: two tasks of one name, or a template that is not well formed.
    """
    tasks: dict[str, InstructionTask] = {}
    for source in sources:
        if source.name in tasks:
            raise RecipeError(f"files.instructions: two tasks are named {source.name!r}; name them apart")
        fields = {field for template in source.templates for text in template for field in _fields(text)}
        rows = []
        for path in find_files(folder, source.path):
            for number, row in read_rows(path):
                where = f"{path}:{number}"
                if missing := sorted(fields - row.keys()):
                    raise DataError(f"{where}: no field {missing[0]!r}, which a template of {source.name!r} names")
                rows.append({field: read_identity(row, field, "", where=where) for field in sorted(fields)})
        tasks[source.name] = InstructionTask(source.name, rows, source.templates)
    return list(tasks.values())


@lru_cache(maxsize=1024)
def _fields(template: str) -> tuple[str, ...]:
    """Return the fields that a template names.

    Raises:
        RecipeError: it is not well formed.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise RecipeError(f"template {template!r}: {error}; write a brace of the text twice") from None
    found = tuple(name for _, name, _, _ in parts if name is not None)
    if bad := [name for name in found if not re.fullmatch(r"\w+", name)]:
        raise RecipeError(f"template {template!r}: {{{bad[0]}}} is no field's name")
    return found


def _fill(template: str, row: Mapping[str, str]) -> str:
    return template.format_map({field: row[field] for field in _fields(template)})
