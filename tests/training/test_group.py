"""Rewards here are known functions of the tokens, so that learning, and not learning, can be seen."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from statistics import fmean, pstdev
from typing import Any

import pytest
import torch
from tests.training.conftest import Open, assert_same_bits
from torch import Tensor

from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.foundation.stage import Stage
from sanbai.generation.answering import Completion, FinishReason
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model
from sanbai.text.tokenizer import Tokenizer
from sanbai.training import group
from sanbai.training.alarms import AlarmsRecipe
from sanbai.training.candidates import Candidates
from sanbai.training.gradients import differentiate
from sanbai.training.group import GroupRecipe, compare, describe, train_group
from sanbai.training.learner import Learner
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.practice import minibatches
from sanbai.training.rollouts import Readings, Rollouts, Score

RECIPE = GroupRecipe(
    num_iterations=4,
    batch_prompts=4,
    minibatch_prompts=2,
    num_answers=3,
    num_epochs=2,
    micro_batch_tokens=60,
    max_new_tokens=6,
    learning_rate=1e-3,
    warmup_iterations=2,
    kl_coef=0.05,
    ptx_coef=0.5,
    ptx_ratio=0.34,
    ptx_row_length=32,
    ema_decay=0.5,
    judge_iterations=2,
    kl_budget=1000.0,
    patience=100,
    checkpoint_iterations=1,
)
PROMPTS = [[0, 3, 40 + number, 6, 4] for number in range(10)]
LIKED = range(100, 200)
METHODS: dict[str, dict[str, Any]] = {
    "GRPO": {},
    "Dr. GRPO": {"advantage": "dr_grpo", "normalization": "constant", "kl_in": "k2_loss"},
    "RLOO": {"advantage": "rloo", "normalization": "sum", "surrogate": "reinforce", "kl_in": "reward"},
}


def share_liked(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
    return [4 * sum(token in LIKED for token in response) / len(response) for response in responses]


def start(
    stage: Stage,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    recipe: GroupRecipe = RECIPE,
    reward: Score = share_liked,
    judge: Score = share_liked,
    prompts: Sequence[Sequence[int]] = PROMPTS,
) -> dict[str, Any]:
    return train_group(
        stage,
        recipe,
        compute,
        policy=copy.deepcopy(model),
        reward=reward,
        judge=judge,
        tokenizer=tokenizer,
        prompts=prompts,
        judge_prompts=PROMPTS[:4],
        pretraining=items,
    )


def metrics_of(stage: Stage, name: str) -> list[float]:
    rows = [json.loads(line) for line in (stage.run.folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


LEARNING = RECIPE.model_copy(
    update={
        "num_iterations": 14,
        "batch_prompts": 8,
        "minibatch_prompts": 4,
        "num_answers": 4,
        "micro_batch_tokens": 2048,
        "learning_rate": 1e-2,
        "ptx_coef": 0.0,
        "judge_iterations": 14,
        "checkpoint_iterations": 100,
    }
)


@pytest.mark.parametrize("method", METHODS)
def test_a_known_reward_rises(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems, method: str
) -> None:
    stage = open_stage()
    recipe = LEARNING.model_copy(update=METHODS[method])
    metrics = start(stage, compute, model, tokenizer, items, recipe)
    rewards = metrics_of(stage, "reward")
    assert rewards[0] < 2.0
    assert fmean(rewards[-3:]) > rewards[0] + 1.0
    assert metrics["judge_reward"] > metrics["judge_reward_before"]
    assert metrics["kept_iteration"] == 14


@pytest.mark.parametrize("method", METHODS)
def test_a_shuffled_reward_teaches_nothing(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems, method: str
) -> None:
    """The control: the same numbers, given to the wrong answers."""
    chance = random.Random(0)

    def shuffled(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        scores = share_liked(prompts, responses)
        return chance.sample(scores, len(scores))

    stage = open_stage()
    start(stage, compute, model, tokenizer, items, LEARNING.model_copy(update=METHODS[method]), reward=shuffled)
    rewards = metrics_of(stage, "reward")
    assert fmean(rewards[-3:]) < rewards[0] + 0.5


def test_trap_19_a_constant_reward_moves_nothing(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    recipe = RECIPE.model_copy(update={"ptx_coef": 0.0, "kl_coef": 0.0, "unfinished_penalty": 0.0, "num_iterations": 2})
    stage = open_stage()
    start(stage, compute, model, tokenizer, items, recipe, reward=lambda prompts, responses: [0.3] * len(responses))
    assert metrics_of(stage, "grad_norm") == [0.0, 0.0]
    assert metrics_of(stage, "flat_groups") == [1.0, 1.0]


@pytest.mark.parametrize("kl_in", ["reward", "k2_loss"])
def test_with_a_huge_price_on_kl_the_policy_stays(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems, kl_in: str
) -> None:
    """Centred advantages, so that in the reward too a larger price is a stronger pull."""
    kl = {}
    for kl_coef in (0.0, 5.0):
        stage = open_stage(str(kl_coef))
        update = {"kl_coef": kl_coef, "kl_in": kl_in, "advantage": "dr_grpo"}
        start(stage, compute, model, tokenizer, items, LEARNING.model_copy(update=update))
        kl[kl_coef] = metrics_of(stage, "kl_k3")[-1]
    assert kl[5.0] < 0.3 * kl[0.0]


def test_trap_25_killed_twice_it_ends_in_the_same_bits(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
) -> None:
    recipe = RECIPE.model_copy(update={"learning_rate": 3e-2})
    results: dict[str, tuple[dict[str, Any], list[float]]] = {}

    def train(stage: Stage) -> None:
        metrics = start(stage, compute, model, tokenizer, items, recipe)
        results[stage.folder.parent.name] = (metrics, metrics_of(stage, "grad_norm"))

    killed, undisturbed = outcome_after_kills(train, "killed", (2, 3)), outcome_after_kills(train, "undisturbed")
    assert_same_bits(killed, undisturbed)
    assert results["killed"] == results["undisturbed"]
    assert results["killed"][0]["kept_iteration"] > 0  # the weights compared are trained ones


def test_no_bit_depends_on_the_number_of_threads(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    threads: Callable[[int], None],
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
) -> None:
    recipe = RECIPE.model_copy(update={"learning_rate": 3e-2, "rollout_rows": 4, "num_iterations": 2})
    outcomes = []
    for number in (1, 3):
        threads(number)
        train = lambda stage: start(stage, compute, model, tokenizer, items, recipe)  # noqa: E731
        outcomes.append(outcome_after_kills(train, f"{number} threads"))
    assert_same_bits(*outcomes)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trap_10_the_first_minibatchs_ratio_is_one(
    open_stage: Open,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    loss = group.clipped_policy_loss

    def spy(logprob: Tensor, old: Tensor, *rest: Tensor, **named: Any) -> Tensor:
        seen.append((logprob.detach().clone(), old.clone()))
        return loss(logprob, old, *rest, **named)

    monkeypatch.setattr(group, "clipped_policy_loss", spy)
    compute = Compute.model_validate({"num_threads": 1, "precision": precision})
    recipe = RECIPE.model_copy(update={"num_iterations": 1, "minibatch_prompts": 4})
    start(open_stage(), compute, model, tokenizer, items, recipe)
    groups = len(seen) // 2
    assert all(torch.equal(new, old) for new, old in seen[:groups])
    assert any(not torch.equal(new, old) for new, old in seen[groups:])


SCORES = [[1.0, 1.0, 4.0], [-2.0, 0.5, 0.0]]
LENGTHS = [5, 2, 6, 1, 3, 4]
REASONS: list[FinishReason] = ["stop", "length", "stop", "stop", "stop", "length"]


def drawn_by_hand() -> tuple[Candidates, Readings]:
    completions = [
        Completion([6] * length, [-1.0] * length, [-1.0] * length, reason)
        for length, reason in zip(LENGTHS, REASONS, strict=True)
    ]
    rollouts = Rollouts([[0, 6, 4]] * 6, completions)
    generator = torch.Generator().manual_seed(0)
    readings = Readings(*(torch.randn(6, 6, generator=generator) * rollouts.mask() for _ in range(4)))
    return Candidates(rollouts, torch.tensor(SCORES)), readings


def slow_rewards(readings: Readings, recipe: GroupRecipe, *, in_reward: bool) -> list[list[float]]:
    rewards = []
    for row, (length, reason) in enumerate(zip(LENGTHS, REASONS, strict=True)):
        log_ratio = [
            readings.logprob_NR[row, step].item() - readings.reference_logprob_NR[row, step].item()
            for step in range(length)
        ]
        price = recipe.kl_coef * sum(log_ratio) if in_reward else 0.0
        rewards.append(SCORES[row // 3][row % 3] - recipe.unfinished_penalty * (reason == "length") - price)
    return [rewards[:3], rewards[3:]]


@pytest.mark.parametrize("kl_in", ["reward", "k2_loss", "k3_loss"])
def test_trap_09_the_kl_is_in_the_reward_or_in_the_loss_and_never_in_both(
    kl_in: str, model: LanguageModel, compute: Compute
) -> None:
    recipe = RECIPE.model_copy(update={"kl_coef": 0.3, "kl_in": kl_in, "unfinished_penalty": 2.5})
    drawn, readings = drawn_by_hand()
    comparison = compare(drawn, readings, recipe)
    rewards = slow_rewards(readings, recipe, in_reward=kl_in == "reward")
    expected = [
        (reward - fmean(of_prompt)) / (pstdev(of_prompt) + 1e-4) for of_prompt in rewards for reward in of_prompt
    ]
    assert comparison.advantage_N.tolist() == pytest.approx(expected, abs=1e-5)
    numbers = describe(comparison, drawn)
    assert numbers["reward"] == pytest.approx(fmean(map(fmean, SCORES)))  # as the reward model gave it
    assert numbers["group_deviation"] == pytest.approx(fmean(map(pstdev, rewards)), abs=1e-6)

    def loss(kl_coef: float) -> float:
        """Of the same comparison, which was made at the first price."""
        priced = recipe.model_copy(update={"kl_coef": kl_coef})
        parts = group._policy_parts(model, comparison, [list(range(6))], priced, compute, torch.zeros(6, 6))
        return differentiate({"policy": parts})["policy"].loss

    difference = loss(0.3) - loss(0.0)
    if kl_in == "reward":
        assert difference == 0.0
    else:
        assert difference > 0.01


@pytest.mark.parametrize("normalization", ["response", "token", "constant", "sum"])
def test_trap_15_the_gradient_is_the_same_however_the_minibatch_is_cut(
    model: LanguageModel, compute: Compute, normalization: str
) -> None:
    """In float64: rows are laid out otherwise, so sums round otherwise."""
    model.double()
    recipe = RECIPE.model_copy(update={"normalization": normalization, "kl_coef": 0.3})
    drawn, readings = drawn_by_hand()
    comparison = compare(drawn, readings, recipe)

    def gradient(minibatch: list[list[int]]) -> list[Tensor]:
        parts = group._policy_parts(
            model, comparison, minibatch, recipe, compute, torch.zeros(6, 6, dtype=torch.float64)
        )
        return differentiate({"policy": parts})["policy"].gradient

    whole = gradient([[0, 1, 2, 3, 4, 5]])
    for cut in ([[0, 1, 2], [3, 4, 5]], [[3], [4, 5], [0], [1], [2]]):
        for first, second in zip(whole, gradient(cut), strict=True):
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_the_answers_of_a_prompt_share_a_minibatch() -> None:
    plan = minibatches([10] * 12, RECIPE, seed=3, num_answers=3)
    members = [sorted(index for group in minibatch for index in group) for minibatch in plan]
    assert sorted(index for minibatch in members for index in minibatch) == list(range(12))
    for minibatch in members:
        assert len(minibatch) == 6
        assert all(minibatch[place] // 3 == minibatch[place - 1] // 3 for place in (1, 2, 4, 5))


def test_one_optimizer_step_a_minibatch_and_the_reference_never_moves(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps, learners = [], []
    step, gather = Optimizer.step, Learner.gather
    monkeypatch.setattr(Optimizer, "step", lambda self, rate: steps.append(rate) or step(self, rate))
    monkeypatch.setattr(
        Learner, "gather", lambda *given, **named: learners.append(gather(*given, **named)) or learners[-1]
    )
    start(open_stage(), compute, model, tokenizer, items)
    assert len(steps) == 4 * 2 * 2  # iterations, epochs, minibatches
    (seen,) = learners
    assert_same_bits(dict(seen.reference.named_parameters()), dict(model.named_parameters()))


def test_the_weights_that_the_second_judge_likes_best_are_saved(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    calls = []

    def souring(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        calls.append(len(responses))
        return [-float(len(calls))] * len(responses)

    stage = open_stage()
    recipe = RECIPE.model_copy(update={"judge_iterations": 1, "patience": 2})
    metrics = start(stage, compute, model, tokenizer, items, recipe, judge=souring)
    assert metrics["stop_reason"] == "patience"
    assert metrics["kept_iteration"] == 0
    saved = load_language_model(stage.folder)
    assert_same_bits(dict(saved.named_parameters()), dict(model.named_parameters()))


#: Fields that must not change what is learned: they cut the same work differently or say when to save.
NEUTRAL = {"micro_batch_tokens", "rollout_rows", "checkpoint_iterations"}
OTHER: dict[str, Any] = {
    "num_iterations": 3,
    "batch_prompts": 3,
    "minibatch_prompts": 1,
    "num_answers": 2,
    "num_epochs": 1,
    "max_new_tokens": 3,
    "temperature": 0.7,
    "learning_rate": 1e-4,
    "warmup_iterations": 0,
    "advantage": "rloo",
    "normalization": "token",
    "surrogate": "reinforce",
    "kl_in": "reward",
    "kl_coef": 3.0,
    "clip": 0.0001,
    "unfinished_penalty": 9.0,
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
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    assert OTHER.keys() | NEUTRAL | {"ptx_target_ratio"} == GroupRecipe.model_fields.keys()
    small = {"num_iterations": 2, "judge_iterations": 2, "batch_prompts": 2, "max_new_tokens": 4}
    base = RECIPE.model_copy(update=small)
    prompts = [PROMPTS[0], [0, 3, *[41] * 57, 6, 4]]  # the context leaves the second's answers three tokens
    chance = {"judge": 0}

    def souring(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        chance["judge"] += 1
        return [-float(chance["judge"])] * len(responses)

    def trace(name: str, recipe: GroupRecipe) -> str:
        chance["judge"] = 0
        stage = open_stage(name)
        metrics = start(stage, compute, model, tokenizer, items, recipe, judge=souring, prompts=prompts)
        return (stage.run.folder / "metrics.jsonl").read_text() + json.dumps(metrics)

    plain = trace("plain", base)
    assert trace("again", base) == plain
    for field, value in OTHER.items():
        assert trace(field, base.model_copy(update={field: value})) != plain, field
    to_ratio = base.model_copy(update={"ptx_weight": "target_ratio"})
    another = to_ratio.model_copy(update={"ptx_target_ratio": 3.0})
    assert trace("to a ratio", to_ratio) != trace("to another", another)
    for field, others in (("normalization", ("constant", "sum")), ("kl_in", ("k2_loss",)), ("advantage", ("dr_grpo",))):
        for value in others:
            assert trace(f"{field} {value}", base.model_copy(update={field: value})) != plain, value
