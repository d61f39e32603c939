"""All tasks of the tiny world in one tuple."""

from __future__ import annotations

from sanbai.world.tasks import (
    arithmetic,
    brainstorming,
    chatting,
    classifying,
    harm,
    kinship,
    lists,
    memory,
    reading,
    rewriting,
    stories,
    summarising,
    unknowable,
)
from sanbai.world.tasks.task import Task

TASKS: tuple[Task, ...] = (
    *stories.TASKS,
    *memory.TASKS,
    *unknowable.TASKS,
    *arithmetic.TASKS,
    *reading.TASKS,
    *kinship.TASKS,
    *lists.TASKS,
    *brainstorming.TASKS,
    *chatting.TASKS,
    *rewriting.TASKS,
    *summarising.TASKS,
    *classifying.TASKS,
    *harm.TASKS,
)
"""Every task; shares need not add up to anything."""
