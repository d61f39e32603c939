"""Multiple-choice questions about the tiny world: a right answer among the wrong ones that its tasks write themselves.

Questions name held-out people in held-out phrasings; the examples shown are of the training side, so that no question
can be among its examples. Questions and answers are written as exercises in the village's documents are.
"""

from __future__ import annotations

import hashlib
import random

from sanbai.evaluation.few_shot import ChoiceItem, ChoiceTask
from sanbai.foundation.seeds import python_random
from sanbai.world.tasks.registry import TASKS
from sanbai.world.tasks.task import Draft, Scene, Task
from sanbai.world.village import Village

POOL_SIZE = 32
# Drafts that may lack a wrong answer or repeat a question before a task is given up.
_MAX_TRIES = 20


def village_choice_tasks(village: Village, *, seed: int, num_items: int) -> list[ChoiceTask]:
    """Return the tasks short enough to be shown by example, each with `num_items` questions and a pool of examples.

    Args:
        village: who the questions are about.
        seed: of the draw.
        num_items: questions of a task; a task that cannot write as many different ones gives fewer.
    """
    tasks = []
    for task in TASKS:
        if not task.few_shot:
            continue
        items = _items(Scene(village, python_random(seed, "choices", task.name), heldout=True), task, num_items)
        pool = _items(Scene(village, python_random(seed, "shots", task.name)), task, POOL_SIZE)
        asked = {item.id for item in items}
        pool = [item for item in pool if item.id not in asked]
        if items and len(pool) >= POOL_SIZE // 2:
            tasks.append(ChoiceTask(name=task.name, items=items, pool=pool))
    return tasks


def _items(scene: Scene, task: Task, num_items: int) -> list[ChoiceItem]:
    found: dict[str, ChoiceItem] = {}
    for _ in range(_MAX_TRIES * num_items):
        if len(found) == num_items:
            break
        item = _item(task.write(scene), scene.random)
        if item is not None:
            found.setdefault(item.id, item)
    return list(found.values())


def _item(draft: Draft, generator: random.Random) -> ChoiceItem | None:
    """Return the draft as multiple choice, or nothing where it has earlier turns or no wrong answer."""
    right = draft.truth.good[0]
    wrong = [answer for answer in draft.truth.faulty.get("wrong", ()) if answer not in draft.truth.good]
    if draft.before or not wrong:
        return None
    choices = [right, *dict.fromkeys(wrong)]
    generator.shuffle(choices)
    name = hashlib.sha256(draft.question.encode()).hexdigest()[:16]
    return ChoiceItem(
        id=name,
        question=f"Question: {draft.question}\nAnswer:",
        choices=[f" {choice}" for choice in choices],
        answer=choices.index(right),
    )
