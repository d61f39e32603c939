"""The world's tasks as instructions: questions in every phrasing of a task, answered without a fault."""

from __future__ import annotations

from collections.abc import Collection

from sanbai.data.mixtures import InstructionTask
from sanbai.foundation.seeds import python_random
from sanbai.world.demonstrations import perfect
from sanbai.world.prompts import KINDS, prompts
from sanbai.world.recipe import WorldRecipe
from sanbai.world.tasks.registry import TASKS
from sanbai.world.tasks.task import Kind
from sanbai.world.village import Village

#: The question brings its phrasing along: each task has several of its own.
TEMPLATES = (("{question}", "{answer}"),)


def instruction_tasks(
    village: Village, seed: int, *, num: int, kinds: Collection[Kind] = KINDS, recipe: WorldRecipe | None = None
) -> list[InstructionTask]:
    """Return the tasks of some kinds with `num` examples in all, in the mix of people's use; the large ones are large.

    Prompts with earlier turns are left out, so that every example is one question and one answer.

    Args:
        village: who the prompts are about.
        seed: of the draw.
        num: examples wanted; somewhat fewer come, as some prompts are left out.
        kinds: the kinds to draw from.
        recipe: shares of the forms.
    """
    wanted = [task for task in TASKS if task.kind in kinds]
    generator = python_random(seed, "instructions")
    rows: dict[str, list[dict[str, str]]] = {task.name: [] for task in wanted}
    for prompt in prompts(village, seed, split="train", num=num, kinds=kinds, recipe=recipe):
        if len(prompt.messages) == 1:
            rows[prompt.task].append({"question": prompt.messages[0]["content"], "answer": perfect(prompt, generator)})
    return [InstructionTask(name, found, TEMPLATES) for name, found in rows.items() if found]
