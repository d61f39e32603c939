"""Prompts of the ten InstructGPT kinds, in three forms, for training or held out with other people and other phrasings.

`train` prompts name only training people and use training phrasings; `valid` and `heldout` use only held-out people
and phrasings, and share no prompt: the content's hash decides to which of the two a prompt belongs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from sanbai.foundation.errors import UsageError
from sanbai.foundation.files import canonical_json
from sanbai.foundation.seeds import python_random
from sanbai.world.recipe import WorldRecipe
from sanbai.world.tasks.registry import TASKS
from sanbai.world.tasks.task import Draft, Kind, Message, Phrasings, Scene, Task, Truth
from sanbai.world.village import Village

Form = Literal["plain", "few-shot", "user-like"]
Split = Literal["train", "valid", "heldout"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SPLITS: tuple[Split, ...] = get_args(Split)
USE_CASES: dict[Kind, float] = {
    "generation": 45.6,
    "open question": 12.4,
    "brainstorming": 11.2,
    "chat": 8.4,
    "rewrite": 6.6,
    "summarise": 4.2,
    "classify": 3.5,
    "other": 3.5,
    "closed question": 2.6,
    "extract": 1.9,
}
"""Percent of each kind among the prompts that people sent (Ouyang et al. 2022, table 1)."""
USER_TALK = Phrasings(
    (
        "Hi! {q}",
        "Hello. {q} Thank you!",
        "Please help me. {q}",
        "{q} Please answer.",
        "I have a question. {q}",
        "Good morning. {q}",
        "{q} Thank you.",
    ),
    ("Good day! {q}", "Can you help me? {q}", "{q} Thanks!"),
)
MAX_REPEATS = 200
"""Drafts of one task that may repeat known prompts in a row before the stream ends."""


@dataclass(frozen=True)
class Prompt:
    """One prompt and the truth to judge answers by. The id is a hash of the messages."""

    id: str
    messages: tuple[Message, ...] = field(hash=False)
    kind: Kind
    task: str
    form: Form
    split: Split
    truth: Truth = field(hash=False)
    village: Village = field(hash=False, repr=False, compare=False)
    """The world that claims are checked against."""


def prompts(
    village: Village,
    seed: int,
    *,
    split: Split,
    num: int,
    kinds: Collection[Kind] | None = None,
    recipe: WorldRecipe | None = None,
) -> Iterator[Prompt]:
    """Yield `num` distinct prompts in the mix of `task_share`; the same arguments give the same prompts.

    Args:
        village: who the prompts are about.
        seed: of the draw; independent of the village's.
        split: which people and phrasings.
        num: how many; fewer come only if the kinds asked for run dry.
        kinds: the kinds to draw from; all by default.
        recipe: shares of the forms.

    Raises:
        UsageError: a kind or split is unknown.
    """
    recipe = recipe or WorldRecipe()
    unknown = [kind for kind in kinds or () if kind not in KINDS] + [name for name in (split,) if name not in SPLITS]
    if unknown:
        raise UsageError(
            f"world prompts: unknown {unknown[0]!r}; kinds are {', '.join(KINDS)}; splits {', '.join(SPLITS)}"
        )
    scene = Scene(village, python_random(seed, "prompts", split), heldout=split != "train")
    tasks = [task for task in TASKS if kinds is None or task.kind in kinds]
    shares = [task_share(task) for task in tasks]
    seen: set[str] = set()
    repeats = 0
    while len(seen) < num and repeats < MAX_REPEATS:
        task = scene.random.choices(tasks, shares)[0]
        prompt = write_prompt(scene, task, split, recipe)
        if prompt.id in seen or not _belongs(prompt, split):
            repeats += prompt.id in seen
            continue
        repeats = 0
        seen.add(prompt.id)
        yield prompt


def task_share(task: Task) -> float:
    """Return a task's share of the prompts, in percent.

    Nine tenths of a kind's share are people's use and the rest a tenth for each, so that prompts are like theirs and
    yet every kind is asked often enough to be measured; within a kind tasks stand as their own shares do.
    """
    whole_kind = sum(other.share for other in TASKS if other.kind == task.kind)
    return (0.9 * USE_CASES[task.kind] + 0.1 * 100 / len(KINDS)) * task.share / whole_kind


def write_prompt(scene: Scene, task: Task, split: Split, recipe: WorldRecipe) -> Prompt:
    """Write one prompt of the task in a form drawn by the recipe's shares."""
    draft = task.write(scene)
    form: Form = "plain"
    question = draft.question
    if task.few_shot and scene.chance(recipe.few_shot_share):
        form, question = "few-shot", _with_examples(scene, task, draft)
    elif scene.chance(recipe.user_like_share):
        form, question = "user-like", scene.phrase(USER_TALK).format(q=question)
    messages = (*draft.before, {"role": "user", "content": question})
    return Prompt(prompt_id(messages), messages, task.kind, task.name, form, split, draft.truth, scene.village)


def prompt_id(messages: tuple[Message, ...]) -> str:
    """Return the id that these messages give: `prompt-` and 16 hexadecimal digits of their SHA-256."""
    return f"prompt-{hashlib.sha256(canonical_json(list(messages)).encode()).hexdigest()[:16]}"


def _with_examples(scene: Scene, task: Task, draft: Draft) -> str:
    """Put two solved examples of the same task before the question."""
    examples = [task.write(scene) for _ in range(2)]
    solved = [f"{example.question}\n{example.truth.good[0]}" for example in examples]
    return "\n\n".join([*solved, draft.question])


def _belongs(prompt: Prompt, split: Split) -> bool:
    return split == "train" or (int(prompt.id[-1], 16) % 2 == 0) == (split == "valid")
