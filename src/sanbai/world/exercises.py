"""Exercises: training tasks as plain text in question and answer form, so that pretraining meets the prompts' skills.

Only training people, strangers and phrasings appear here; prose (`prose.py`) is about everybody.
"""

from __future__ import annotations

from sanbai.world.lexicon import category
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
from sanbai.world.tasks.task import Draft, Scene, Task, Truth, sentence

EXERCISE_TASKS = tuple(task for task in TASKS if task.in_documents)
_SHARES = tuple(task.share for task in EXERCISE_TASKS)
MARKS = (
    ("Mark: right.", "Mark: wrong."),
    ("Teacher: That is right.", "Teacher: That is wrong."),
    ("Right!", "Wrong."),
)
"""How a teacher marks a right answer and a wrong one."""
VALUE_CATEGORIES = frozenset({"person", "place", "day", "thing", "food", "hobby", "feeling", "weather", "animal"})
"""Categories whose values stand in answers as they are, so that another can take their place."""


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


def write_marked(scene: Scene) -> str:
    """Two or three answers of pupils, half of them wrong, each with the teacher's mark.

    Reading marks is how a model comes to tell right answers from wrong ones, which a reward model builds on.
    """
    right, wrong = scene.choose(MARKS)
    layout = scene.choose(("Question: {q}\nAnswer: {a}\n{mark}", "{q}\n{a}\n{mark}", "Task: {q}\nPupil: {a}\n{mark}"))
    parts = []
    for _ in range(scene.random.randint(2, 3)):
        task = scene.random.choices(EXERCISE_TASKS, _SHARES)[0]
        draft = task.write(scene)
        good = scene.choose(draft.truth.good)
        is_right = scene.chance(0.5)
        answer = good if is_right else write_wrong_answer(scene, draft.truth, good)
        mark = right if is_right else f"{wrong} {good}" if scene.chance(0.3) else wrong
        parts.append(layout.format(q=_asked(draft), a=answer, mark=mark))
    return "\n\n".join(parts)


def write_wrong_answer(scene: Scene, truth: Truth, good: str) -> str:
    """Return a wrong answer: the right one with another value, a fault of the task, or what answers something else."""
    ways = [text for faulty in truth.faulty.values() for text in faulty]
    for answer in truth.answers:
        if truth.category in VALUE_CATEGORIES and f" {answer}" in good:
            other = scene.other(tuple(dict.fromkeys(category(truth.category).values())), *truth.answers)
            ways += [good.replace(answer, other)] * 2
    if truth.rule != "unknown":
        ways.append(scene.choose((*NOT_SAID, "I do not know that.")))
    elsewhere = scene.random.choices(EXERCISE_TASKS, _SHARES)[0].write(scene).truth
    ways.append(scene.choose(elsewhere.good))
    return scene.choose([text for text in ways if text not in truth.good] or [NOT_SAID[0]])


def _asked(draft: Draft) -> str:
    return sentence(" ".join([*(message["content"] for message in draft.before), draft.question]))


def _solved(scene: Scene, task: Task, layout: str, name: str, other: str) -> str:
    draft = task.write(scene)
    return layout.format(q=_asked(draft), a=scene.choose(draft.truth.good), name=name, other=other)
