"""Sampling the answers that labelers rank."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sanbai.data.prompts import Prompt
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import Interrupted, RecipeError
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.recipe import validate_recipe
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Job, Stage, run_stage
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.generation.precision import decoding_copy
from sanbai.generation.sampling import Sampling
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.rounds.tasks import LabelRecipe, Task, num_task_steps, read_tasks, sample_tasks
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

COMPUTE = Compute(num_threads=1, precision="float32")
PROMPTS = [Prompt(f"p{n}", ({"role": "user", "content": f"Say {n}"},), "other") for n in range(7)]
RECIPE = LabelRecipe(
    num_prompts=5,
    num_heldout_prompts=2,
    min_answers=2,
    max_answers=4,
    batch_size=1,
    sampling=Sampling(max_new_tokens=3),
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["Say something else, please."] * 20, vocab_size=270)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> LanguageModel:
    config = ModelConfig(num_layers=1, width=16, num_heads=1, num_kv_heads=1, head_width=16, feed_forward_width=16)
    return LanguageModel(config.with_vocabulary(tokenizer.vocab_size), torch_generator(1, "test"))


def sample(
    job: Job,
    model: LanguageModel,
    tokenizer: Tokenizer,
    *,
    stop_after: int = 0,
    recipe: LabelRecipe = RECIPE,
    compute: Compute = COMPUTE,
    choose: Callable[[Sequence[Task]], Sequence[Task]] | None = None,
) -> Artifact:
    def build(stage: Stage) -> Mapping[str, Any]:
        record = stage.run.record

        def stop_when_told(step: int, **metrics: float) -> None:
            record(step, **metrics)
            if step == stop_after:
                job.stop.request()

        stage.run.record = stop_when_told  # type: ignore[method-assign]
        return sample_tasks(
            stage,
            recipe,
            compute,
            model=model,
            tokenizer=tokenizer,
            prompts=PROMPTS[:5],
            heldout_prompts=PROMPTS[5:],
            choose=choose,
        )

    return run_stage(
        job,
        kind="tasks",
        name="sample answers",
        recipe={"label": recipe, "compute": compute},
        parents={},
        seed=1,
        floor="generation",
        num_steps=num_task_steps(recipe, len(PROMPTS)),
        build=build,
    )


def open_job(folder: Path) -> Job:
    workspace = Workspace(folder)
    workspace.create()
    return Job(workspace, SilentProgress(), StopSignal())


def test_every_task_holds_different_answers_and_knows_its_side(
    tmp_path: Path, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    tasks = list(read_tasks(sample(open_job(tmp_path), model, tokenizer).file("tasks.jsonl.gz")))
    assert len({task.id for task in tasks}) == len(tasks) > 0
    for task in tasks:
        assert len(set(task.responses)) == len(task.responses)
        assert RECIPE.min_answers <= len(task.responses) <= RECIPE.max_answers
    heldout = {task.messages[0]["content"] for task in tasks if task.heldout}
    assert heldout <= {"Say 5", "Say 6"}


def test_answers_are_drawn_in_the_precision_of_the_products(
    tmp_path: Path, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    rounded = decoding_copy(model, "bfloat16")
    half = COMPUTE.model_copy(update={"precision": "bfloat16"})
    long = RECIPE.model_copy(update={"sampling": Sampling(max_new_tokens=100)})
    stored, cast, expected = (
        sample(open_job(tmp_path / name), drawn, tokenizer, recipe=long, compute=compute)
        .file("tasks.jsonl.gz")
        .read_bytes()
        for name, drawn, compute in (("stored", model, COMPUTE), ("cast", model, half), ("rounded", rounded, COMPUTE))
    )
    assert cast == expected
    assert stored != expected


def test_a_stopped_sampling_continues_to_the_same_bytes(
    tmp_path: Path, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    whole = sample(open_job(tmp_path / "whole"), model, tokenizer).file("tasks.jsonl.gz").read_bytes()
    with pytest.raises(Interrupted):
        sample(open_job(tmp_path / "cut"), model, tokenizer, stop_after=1)
    continued = sample(open_job(tmp_path / "cut"), model, tokenizer).file("tasks.jsonl.gz").read_bytes()
    assert continued == whole


def test_only_the_tasks_that_are_chosen_are_written(tmp_path: Path, model: LanguageModel, tokenizer: Tokenizer) -> None:
    offered: list[Task] = []

    def choose(tasks: Sequence[Task]) -> list[Task]:
        offered.extend(tasks)
        return [tasks[1].with_answers((1, 0)), tasks[0]]

    every = list(read_tasks(sample(open_job(tmp_path / "all"), model, tokenizer).file("tasks.jsonl.gz")))
    artifact = sample(open_job(tmp_path / "some"), model, tokenizer, choose=choose)
    assert offered == every
    second, first = read_tasks(artifact.file("tasks.jsonl.gz"))
    assert first == every[0]
    assert second.responses == (every[1].responses[1], every[1].responses[0])
    assert second == Task.of(Prompt("", second.messages, second.kind), second.responses, heldout=second.heldout)
    assert artifact.metrics["tasks"] == 2


def test_foreign_answers_come_from_other_prompts_of_the_same_side(
    tmp_path: Path, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    own, mixed = (
        {
            task.messages[0]["content"]: task
            for task in read_tasks(
                sample(open_job(tmp_path / name), model, tokenizer, recipe=recipe).file("tasks.jsonl.gz")
            )
        }
        for name, recipe in (
            ("own", RECIPE.model_copy(update={"min_answers": 2, "max_answers": 3})),
            ("mixed", RECIPE.model_copy(update={"min_answers": 2, "max_answers": 5, "num_foreign_answers": 2})),
        )
    )
    sides: dict[bool, set[str]] = {True: set(), False: set()}
    for task in own.values():
        sides[task.heldout] |= {*task.responses}
    num_foreign = 0
    for content, task in mixed.items():
        kept = own[content].responses if content in own else ()
        assert task.responses[: len(kept)] == kept
        added = task.responses[len(kept) :]
        num_foreign += len(added)
        assert len(added) <= 2 + (content not in own)
        assert content not in own or {*added} <= sides[task.heldout] - {*kept}
    assert num_foreign >= len(mixed)


def test_groups_that_leave_nobody_to_train_on_are_refused() -> None:
    values = {"num_labelers": 10, "num_judge_labelers": 5, "num_heldout_labelers": 5}
    with pytest.raises(RecipeError, match="leave no labeler to train on"):
        validate_recipe(LabelRecipe, values, source="r.toml")
