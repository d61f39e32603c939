"""A reward model as a labeler: its buckets, its share, its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from scipy.special import logit

from sanbai.data.rankings import Ranking
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.device import Compute
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Job, Stage, run_stage
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import save_model
from sanbai.rounds.material import WorldMaterial
from sanbai.rounds.model_labeler import (
    TIE_MARGIN,
    buckets_of,
    cap_share,
    count_teachers,
    is_model,
    ranks_in_their_place,
)
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.recipe import Recipe
from sanbai.rounds.tasks import Task, choose_informative
from sanbai.text.tokenizer import Tokenizer, train_tokenizer
from sanbai.training.reward_model import Calibration, RewardModel, load_reward_model, save_calibration

COMPUTE = Compute(num_threads=1, precision="float32")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["Say something else, please."] * 20, vocab_size=270)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    workspace = Workspace(tmp_path_factory.mktemp("models"))
    workspace.create()
    recipe = Recipe(compute=COMPUTE)
    return Pipeline(Job(workspace, SilentProgress(), StopSignal()), recipe, WorldMaterial(recipe))


CONFIG = ModelConfig(num_layers=1, width=16, num_heads=1, num_kv_heads=1, head_width=16, feed_forward_width=16)


def keep(pipeline: Pipeline, name: str, model: LanguageModel | ScalarModel, tokenizer: Tokenizer) -> Artifact:
    def build(stage: Stage) -> Mapping[str, Any]:
        save_model(model, stage.folder, tokenizer)
        save_calibration(stage.folder, Calibration(1, 0.0, 0.0, 1.0))
        return {}

    return run_stage(
        pipeline.job,
        kind="model",
        name=name,
        recipe={},
        parents={},
        seed=1,
        floor="foundation",
        num_steps=1,
        build=build,
    )


@pytest.fixture(scope="module")
def teacher(pipeline: Pipeline, tokenizer: Tokenizer) -> Artifact:
    model = ScalarModel(CONFIG.with_vocabulary(tokenizer.vocab_size), torch_generator(1, "test"))
    return keep(pipeline, "reward", model, tokenizer)


@pytest.fixture(scope="module")
def reward(teacher: Artifact) -> RewardModel:
    return load_reward_model(teacher.path, COMPUTE)


def task(number: int, num_answers: int = 5) -> Task:
    answers = tuple(f"{number} {place} please" + " else" * place for place in range(num_answers))
    return Task(f"t{number}", ({"role": "user", "content": f"Say {number}"},), answers, "chat", heldout=False)


def ranking(number: int, labeler: str) -> Ranking:
    return Ranking(f"{number}:{labeler}", ({"role": "user", "content": "?"},), ("a", "b"), ((0,), (1,)), labeler)


PEOPLE = [ranking(number, "ada") for number in range(30)]
MODELS = [ranking(number, "model:model-1") for number in range(40)]


def test_answers_that_the_model_cannot_tell_apart_tie_and_the_best_come_first() -> None:
    assert pytest.approx(logit(0.6), abs=1e-3) == TIE_MARGIN
    assert buckets_of([0.0, 2.0, 1.7, -5.0]) == ((1, 2), (0,), (3,))
    # Margins are taken to the best of a bucket, so that ties do not chain.
    assert buckets_of([0.9, 0.6, 0.3]) == ((0, 1), (2,))
    assert buckets_of([1.0, 1.0]) == ((0, 1),)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.25, 10), (0.5, 30), (0.9, 40)])
def test_models_make_at_most_their_share_and_people_all_stay(share: float, kept: int) -> None:
    found = cap_share([*MODELS, *PEOPLE], share, seed=1)
    assert [one for one in found if not is_model(one.labeler)] == PEOPLE
    models = [one for one in found if is_model(one.labeler)]
    assert len(models) == kept
    assert len(models) <= share * len(found) + 1e-9
    assert cap_share([*PEOPLE, *reversed(MODELS)], share, seed=1) == [*PEOPLE, *reversed(models)]


def test_without_models_nothing_changes() -> None:
    assert cap_share(PEOPLE, 0.0, seed=1) == PEOPLE


def test_a_share_of_the_training_tasks_goes_to_the_model_and_none_that_measures() -> None:
    tasks = [
        Task(f"t{n}", ({"role": "user", "content": "?"},), ("a", "b"), "chat", heldout=n % 2 == 1) for n in range(4000)
    ]
    given = [task for task in tasks if ranks_in_their_place(task, 0.3, seed=1)]
    assert not any(task.heldout for task in given)
    assert 540 < len(given) < 660  # 600 expected, deviation 20
    assert not any(ranks_in_their_place(task, 0.0, seed=1) for task in tasks)


def test_whose_rankings_they_are_is_counted_apart() -> None:
    simulated = [ranking(number, "labeler-1-01") for number in range(5)]
    counts = count_teachers([*PEOPLE, *simulated, *MODELS], ["labeler-1-01"])
    assert counts == {"person": 30, "simulated": 5, "model": 40}


def test_a_task_s_answers_are_ordered_by_their_rewards(
    pipeline: Pipeline, teacher: Artifact, reward: RewardModel, tokenizer: Tokenizer
) -> None:
    tasks = [task(number, 2 + number) for number in range(3)]
    expected = [
        buckets_of(reward.score_answers(tokenizer, [(one.messages, text) for text in one.responses])) for one in tasks
    ]
    assert pipeline.rank(teacher, tasks) == expected


def test_the_model_s_agreement_is_counted_on_labelers_rankings_of_its_round_alone(
    pipeline: Pipeline, teacher: Artifact, reward: RewardModel, tokenizer: Tokenizer
) -> None:
    name = f"model:{teacher.name}"
    asked = [task(number, 2) for number in range(6)]

    def said(one: Task, labeler: str, number: int) -> Ranking:
        return Ranking(f"{one.id}:{labeler}", one.messages, one.responses, ((0,), (1,)), labeler, round=number)

    rankings = [said(one, "ada", 2) for one in asked[:5]]
    rankings += [said(asked[5], "ada", 1), said(asked[5], name, 2)]
    scores = [reward.score_answers(tokenizer, [(one.messages, text) for text in one.responses]) for one in asked[:5]]
    found = pipeline._count_teachers(pipeline.material, rankings, 2)  # type: ignore[arg-type]
    assert found["rankings"] == {"person": 6, "simulated": 0, "model": 1}
    assert found["model_agreement"][name]["n"] == 5
    assert found["model_agreement"][name]["mean"] == sum(first > second for first, second in scores) / 5
    assert pipeline._count_teachers(pipeline.material, rankings[:6], 2)["model_agreement"] == {}  # type: ignore[arg-type]


def test_people_are_shown_the_tasks_that_teach_most(reward: RewardModel, tokenizer: Tokenizer) -> None:
    alike = Task("alike", ({"role": "user", "content": "Say"},), ("please", "please"), "chat", heldout=False)
    tasks = [alike, *(task(number) for number in range(4))]
    known = [Ranking("r", tasks[1].messages, tasks[1].responses, ((0,), (1,), (2,), (3,), (4,)), "ada")]
    found = choose_informative(tasks, reward, tokenizer, known, num_tasks=3, num_answers=2)
    assert len(found) == 3
    by_prompt = {one.messages[0]["content"]: one for one in tasks}
    for one in found:
        origin = by_prompt[one.messages[0]["content"]]
        assert len(one.responses) == 2
        assert set(one.responses) <= set(origin.responses)
        assert one.kind == "chat"
        assert one.id != origin.id
    assert "Say" not in {one.messages[0]["content"] for one in found}  # nothing is learned from equal answers
    assert found == choose_informative(tasks, reward, tokenizer, known, num_tasks=3, num_answers=2)
    (whole,) = choose_informative(tasks[1:2], reward, tokenizer, [], num_tasks=9, num_answers=9)
    assert whole.responses == tasks[1].responses


def test_trap_28_every_field_of_the_open_tasks_changes_what_people_are_shown(
    pipeline: Pipeline, teacher: Artifact, tokenizer: Tokenizer
) -> None:
    model = LanguageModel(CONFIG.with_vocabulary(tokenizer.vocab_size), torch_generator(2, "test"))
    policy = keep(pipeline, "policy", model, tokenizer)
    plain = pipeline.recipe.label.model_copy(
        update={"num_open_prompts": 2, "min_answers": 2, "max_answers": 4, "sampling": Sampling(max_new_tokens=4)}
    )
    asked = task(1)
    rankings = [Ranking("r", asked.messages, asked.responses, ((0,), (1, 2), (3, 4)), "ada")]

    def shown(known: list[Ranking], **changes: Any) -> bytes:
        recipe = pipeline.recipe.model_copy(update={"label": plain.model_copy(update=changes)})
        changed = replace(pipeline, recipe=recipe, material=WorldMaterial(recipe))
        return changed.open_tasks(policy, teacher, known, round=2).file("tasks.jsonl.gz").read_bytes()

    by_gain = {"open_choice": "expected_gain", "open_candidates": 3, "open_answers": 3}
    ways = [
        shown(rankings),
        shown(rankings, **by_gain),
        shown(rankings, **{**by_gain, "open_candidates": 1}),
        shown(rankings, **{**by_gain, "open_answers": 2}),
    ]
    assert len(set(ways)) == 4
    # What is taken in a random order needs no reward model, and knows none.
    assert shown([]) == ways[0]
