"""Rewards here are known functions of the tokens, so that learning, and not learning, can be seen."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean, quantiles
from typing import Any

import pytest
import torch
from tests.training.conftest import Open, assert_same_bits
from tests.training.test_group import PROMPTS, metrics_of, share_liked
from torch import Tensor

from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.foundation.stage import Stage
from sanbai.generation.answering import Completion, FinishReason
from sanbai.model.heads import LanguageModel
from sanbai.objectives.language import next_token_loss
from sanbai.text.tokenizer import Tokenizer
from sanbai.training import expert_iteration
from sanbai.training.alarms import AlarmsRecipe
from sanbai.training.candidates import Candidates
from sanbai.training.expert_iteration import ExpertIterationRecipe, chosen_rows, describe, iterate_experts
from sanbai.training.gradients import differentiate
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.rollouts import Rollouts, Score

RECIPE = ExpertIterationRecipe(
    num_iterations=4,
    batch_prompts=4,
    minibatch_prompts=2,
    num_answers=3,
    num_epochs=2,
    micro_batch_tokens=60,
    max_new_tokens=6,
    learning_rate=1e-3,
    warmup_iterations=2,
    ptx_coef=0.5,
    ptx_ratio=0.34,
    ptx_row_length=32,
    ema_decay=0.5,
    judge_iterations=2,
    kl_budget=1000.0,
    patience=100,
    checkpoint_iterations=1,
)
#: Tokens that end an answer: enough of them that a random model ends one in a few.
ENDS = frozenset(range(200, 260))


@pytest.fixture
def ending(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, as of a model with many ends."""
    other = copy.copy(tokenizer)
    other.reserved = replace(tokenizer.reserved, other_ends=ENDS)
    return other


def start(
    stage: Stage,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    recipe: ExpertIterationRecipe = RECIPE,
    reward: Score = share_liked,
    judge: Score = share_liked,
) -> dict[str, Any]:
    return iterate_experts(
        stage,
        recipe,
        compute,
        policy=copy.deepcopy(model),
        reward=reward,
        judge=judge,
        tokenizer=tokenizer,
        prompts=PROMPTS,
        judge_prompts=PROMPTS[:4],
        pretraining=items,
    )


LEARNING = RECIPE.model_copy(
    update={
        "num_iterations": 12,
        "batch_prompts": 8,
        "minibatch_prompts": 4,
        "num_answers": 6,
        "micro_batch_tokens": 2048,
        "learning_rate": 1e-2,
        "ptx_coef": 0.0,
        "judge_iterations": 12,
        "checkpoint_iterations": 100,
    }
)


@pytest.mark.parametrize("choose", ["best", "above_quantile"])
def test_a_known_reward_rises_and_a_shuffled_one_teaches_nothing(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    ending: Tokenizer,
    items: EncodedItems,
    choose: str,
) -> None:
    """The control: the same numbers, given to the wrong answers."""
    chance = random.Random(0)

    def shuffled(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        scores = share_liked(prompts, responses)
        return chance.sample(scores, len(scores))

    recipe = LEARNING.model_copy(update={"choose": choose, "quantile": 0.7})
    stage = open_stage("learns")
    metrics = start(stage, compute, model, ending, items, recipe)
    rewards = metrics_of(stage, "reward")
    assert fmean(rewards[-3:]) > rewards[0] + 0.7
    assert metrics["judge_reward"] > metrics["judge_reward_before"]
    assert metrics["kept_iteration"] == 12
    control = open_stage("control")
    start(control, compute, model, ending, items, recipe, reward=shuffled)
    assert fmean(metrics_of(control, "reward")[-3:]) < rewards[0] + 0.35


def test_trap_25_killed_twice_it_ends_in_the_same_bits(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    model: LanguageModel,
    ending: Tokenizer,
    items: EncodedItems,
) -> None:
    recipe = RECIPE.model_copy(update={"learning_rate": 1e-2})
    results: dict[str, tuple[dict[str, Any], list[float]]] = {}

    def brevity(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return [-float(len(response)) for response in responses]  # what has ended is imitated, so ends come sooner

    def train(stage: Stage) -> None:
        metrics = start(stage, compute, model, ending, items, recipe, judge=brevity)
        results[stage.folder.parent.name] = (metrics, metrics_of(stage, "grad_norm"))

    killed, undisturbed = outcome_after_kills(train, "killed", (2, 3)), outcome_after_kills(train, "undisturbed")
    assert_same_bits(killed, undisturbed)
    assert results["killed"] == results["undisturbed"]
    assert results["killed"][0]["kept_iteration"] > 0  # the weights compared are trained ones


def drawn_by_hand(scores: list[list[float]], reasons: list[FinishReason]) -> Candidates:
    completions = [Completion([6, 7][: 1 + row % 2], [0.0] * 2, [0.0] * 2, why) for row, why in enumerate(reasons)]
    return Candidates(Rollouts([[0, 6, 4]] * len(reasons), completions), torch.tensor(scores))


def test_above_a_quantile_every_finished_answer_of_the_iteration_counts_alike() -> None:
    scores = [[1.0, 2.0, 9.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
    reasons: list[FinishReason] = ["stop", "stop", "length", "stop", "stop", "stop", "stop", "stop"]
    drawn = drawn_by_hand(scores, reasons)
    recipe = RECIPE.model_copy(update={"choose": "above_quantile", "quantile": 0.5})
    finished = [1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    (median,) = quantiles(finished, n=2, method="inclusive")
    assert median == 5.0
    assert chosen_rows(drawn, recipe) == [5, 6, 7]
    assert chosen_rows(drawn, RECIPE) == [3, 7]  # the best of each prompt that is finished
    numbers = describe(drawn, [3, 7])
    assert (numbers["chosen_reward"], numbers["num_chosen"], numbers["best_reward"]) == (6.0, 2, 8.5)


def test_where_every_answer_was_cut_nothing_is_imitated(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    for choose in ("best", "above_quantile"):
        stage = open_stage(choose)
        recipe = RECIPE.model_copy(update={"max_new_tokens": 2, "choose": choose, "num_iterations": 2})
        metrics = start(stage, compute, model, tokenizer, items, recipe)
        assert metrics_of(stage, "num_chosen") == [0, 0]
        assert metrics["judged_kl"] == 0.0


def test_the_loss_is_supervised_fine_tunings_on_the_answers_tokens_alone(
    model: LanguageModel, compute: Compute
) -> None:
    prompts = [[0, 3, 41, 6, 4], [0, 3, 42, 43, 6, 4]]
    answers = [[50, 51, 6], [60, 6]]
    rollouts = Rollouts(prompts, [Completion(answer, [0.0] * 3, [0.0] * 3, "stop") for answer in answers])
    parts = expert_iteration._policy_parts(model, rollouts, [[0], [1]], RECIPE, compute)
    found = differentiate({"policy": parts})["policy"].loss
    total = 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        row_BT = torch.tensor([[*prompt, *answer]])
        mask_BT = torch.tensor([[0.0] * (len(prompt) - 1) + [1.0] * len(answer)])
        total += len(answer) * next_token_loss(model(row_BT[:, :-1]), row_BT[:, 1:], mask_BT).item()
    assert found == pytest.approx(total / 5, rel=1e-5)


#: Fields that must not change what is learned: they cut the same work differently or say when to save.
NEUTRAL = {"micro_batch_tokens", "rollout_rows", "checkpoint_iterations"}
OTHER: dict[str, Any] = {
    "num_iterations": 3,
    "batch_prompts": 3,
    "minibatch_prompts": 1,
    "num_answers": 2,
    "choose": "best",
    "quantile": 0.1,
    "num_epochs": 1,
    "max_new_tokens": 3,
    "temperature": 0.7,
    "learning_rate": 1e-4,
    "warmup_iterations": 0,
    "ptx_coef": 3.0,
    "ptx_ratio": 1.5,
    "ptx_row_length": 48,
    "ema_decay": 0.1,
    "keep": "last",
    "judge_iterations": 1,
    "patience": 1,
    "kl_budget": 1e-6,
    "optimizer": OptimizerRecipe(beta2=0.5),
    "alarms": AlarmsRecipe(least_grad_norm=1e9),
    "ptx_weight": "target_ratio",
}


def test_trap_28_every_field_of_the_recipe_changes_the_run(
    open_stage: Open, compute: Compute, model: LanguageModel, ending: Tokenizer, items: EncodedItems
) -> None:
    assert OTHER.keys() | NEUTRAL | {"ptx_target_ratio"} == ExpertIterationRecipe.model_fields.keys()
    small = {"num_iterations": 2, "judge_iterations": 2, "choose": "above_quantile", "quantile": 0.6}
    base = RECIPE.model_copy(update=small)
    chance = {"judge": 0}

    def souring(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        chance["judge"] += 1
        return [-float(chance["judge"])] * len(responses)

    def trace(name: str, recipe: ExpertIterationRecipe) -> str:
        chance["judge"] = 0
        stage = open_stage(name)
        metrics = start(stage, compute, model, ending, items, recipe, judge=souring)
        return (stage.run.folder / "metrics.jsonl").read_text() + json.dumps(metrics)

    plain = trace("plain", base)
    assert trace("again", base) == plain
    for field, value in OTHER.items():
        assert trace(field, base.model_copy(update={field: value})) != plain, field
    to_ratio = base.model_copy(update={"ptx_weight": "target_ratio"})
    another = to_ratio.model_copy(update={"ptx_target_ratio": 3.0})
    assert trace("to a ratio", to_ratio) != trace("to another", another)
