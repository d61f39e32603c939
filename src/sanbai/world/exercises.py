"""Exercises: training tasks as plain text in question and answer form, so that pretraining meets the prompts' skills.

Only training people, strangers and phrasings appear here; prose (`prose.py`) is about everybody.
"""

from __future__ import annotations

from sanbai.world.outings import (
    SLOTS,
    TELLING,
    TOLD,
    answer_slot,
    ask_slot,
    draw_outing,
    draw_slots,
    draw_variants,
    tell,
)
from sanbai.world.tasks.reading import NOT_SAID, everyone
from sanbai.world.tasks.registry import TASKS
from sanbai.world.tasks.task import Scene, Task, sentence

EXERCISE_TASKS = tuple(task for task in TASKS if task.in_documents)
_SHARES = tuple(task.share for task in EXERCISE_TASKS)


def write_comprehension(scene: Scene) -> str:
    """A passage with three or four questions, one of which may ask for what it does not say."""
    outing = draw_outing(scene, everyone(scene))
    slots = draw_slots(scene, scene.random.randint(2, 4))
    lines = [tell(outing, slots, draw_variants(scene, slots))]
    told = [slot for slot in SLOTS if TELLING.get(slot, slot) in slots]
    asked = scene.sample(told, min(3, len(told)))
    if scene.chance(0.6):
        asked.append(scene.choose([slot for slot in TOLD if slot not in slots]))
        scene.random.shuffle(asked)
    for slot in asked:
        answer = answer_slot(outing, slot, named=scene.chance(0.6)) if slot in told else scene.choose(NOT_SAID)
        lines.append(f"Question: {ask_slot(scene, outing, slot)}\nAnswer: {answer}")
    return "\n".join(lines)


def write_exercise(scene: Scene) -> str:
    """One to four solved questions of one task, in one of several layouts."""
    task = scene.random.choices(EXERCISE_TASKS, _SHARES)[0]
    layout = scene.choose(
        ("Question: {q}\nAnswer: {a}", "{q}\n{a}", "{name}: {q}\n{other}: {a}", "Task: {q}\nSolution: {a}")
    )
    name, other = scene.sample([person.name for person in scene.people], 2)
    parts = [
        _solved(scene, task, layout, name, other) for _ in range(scene.random.randint(2, 4) if task.few_shot else 2)
    ]
    return "\n\n".join(parts)


def _solved(scene: Scene, task: Task, layout: str, name: str, other: str) -> str:
    draft = task.write(scene)
    question = " ".join([*(message["content"] for message in draft.before), draft.question])
    return layout.format(q=sentence(question), a=scene.choose(draft.truth.good), name=name, other=other)
