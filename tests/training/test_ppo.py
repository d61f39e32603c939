"""Rewards here are known functions of the tokens, so that learning, and not learning, can be seen."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tests.training.conftest import Open, assert_same_bits
from torch import Tensor

from sanbai.data.packing import EncodedItems, PackedBatches
from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Stage
from sanbai.generation.answering import Completion
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import load_language_model
from sanbai.text.tokenizer import Tokenizer
from sanbai.training import ppo, practice
from sanbai.training.alarms import AlarmsRecipe
from sanbai.training.buffer import Buffer, Gathered
from sanbai.training.gradients import Differentiated, differentiate, length
from sanbai.training.learner import Learner, add_policy_gradient
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.ppo import PpoRecipe, describe, train_ppo, weigh
from sanbai.training.practice import minibatches
from sanbai.training.rollouts import Readings, Rollouts, Score
from sanbai.training.rows import row_parts

RECIPE = PpoRecipe(
    num_iterations=4,
    batch_prompts=12,
    minibatch_prompts=6,
    num_epochs=2,
    micro_batch_tokens=60,
    max_new_tokens=6,
    learning_rate=1e-3,
    value_learning_rate=1e-3,
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


def share_liked(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
    return [4 * sum(token in LIKED for token in response) / len(response) for response in responses]


def start(
    stage: Stage,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    recipe: PpoRecipe = RECIPE,
    reward: Score = share_liked,
    judge: Score = share_liked,
) -> dict[str, Any]:
    policy = copy.deepcopy(model)
    return train_ppo(
        stage,
        recipe,
        compute,
        policy=policy,
        value=ScalarModel.from_language_model(policy, torch_generator(5, "value")),
        reward=reward,
        judge=judge,
        tokenizer=tokenizer,
        prompts=PROMPTS,
        judge_prompts=PROMPTS[:4],
        pretraining=items,
    )


def metrics_of(stage: Stage, name: str) -> list[float]:
    rows = [json.loads(line) for line in (stage.run.folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


LEARNING = RECIPE.model_copy(
    update={
        "num_iterations": 14,
        "batch_prompts": 32,
        "minibatch_prompts": 16,
        "micro_batch_tokens": 2048,
        "learning_rate": 1e-2,
        "ptx_coef": 0.0,
        "judge_iterations": 14,
        "checkpoint_iterations": 100,
    }
)


def test_a_known_reward_rises(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage()
    metrics = start(stage, compute, model, tokenizer, items, LEARNING)
    rewards = metrics_of(stage, "reward")
    assert rewards[0] < 2.0
    assert sum(rewards[-3:]) / 3 > rewards[0] + 1.0
    assert metrics["judge_reward"] > metrics["judge_reward_before"]
    assert metrics["kept_iteration"] == 14


def test_with_a_huge_price_on_kl_the_policy_stays(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    """The control: the same reward, β a thousand times larger; the walk that whitened noise makes stays small."""
    kl = {}
    for kl_coef in (0.05, 50.0):
        stage = open_stage(str(kl_coef))
        start(stage, compute, model, tokenizer, items, LEARNING.model_copy(update={"kl_coef": kl_coef}))
        kl[kl_coef] = metrics_of(stage, "kl_k3")[-1]
    assert kl[50.0] < 0.1 * kl[0.05]


def test_a_shuffled_reward_teaches_nothing(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    """The control: the same numbers, given to the wrong answers."""
    chance = random.Random(0)

    def shuffled(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        scores = share_liked(prompts, responses)
        return chance.sample(scores, len(scores))

    stage = open_stage()
    start(stage, compute, model, tokenizer, items, LEARNING, reward=shuffled)
    rewards = metrics_of(stage, "reward")
    assert sum(rewards[-3:]) / 3 < rewards[0] + 0.5


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
        results[stage.folder.parent.name] = (metrics, metrics_of(stage, "value_grad_norm"))

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
    recipe = RECIPE.model_copy(update={"learning_rate": 3e-2, "rollout_rows": 4})
    outcomes = []
    for number in (1, 3):
        threads(number)
        train = lambda stage: start(stage, compute, model, tokenizer, items, recipe)  # noqa: E731
        outcomes.append(outcome_after_kills(train, f"{number} threads"))
    assert_same_bits(*outcomes)


def spied_update(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, list[int]]]:
    """Notes (new, old log-probabilities, group's rows) each time the policy loss is asked for."""
    seen: list[tuple[Tensor, Tensor, list[int]]] = []
    loss = ppo.clipped_policy_loss

    def spy(logprob: Tensor, old: Tensor, *rest: Tensor, **named: Any) -> Tensor:
        seen.append((logprob.detach().clone(), old.clone(), []))
        return loss(logprob, old, *rest, **named)

    monkeypatch.setattr(ppo, "clipped_policy_loss", spy)
    return seen


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trap_10_the_first_minibatchs_ratio_is_one(
    open_stage: Open,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    seen = spied_update(monkeypatch)
    compute = Compute.model_validate({"num_threads": 1, "precision": precision})
    recipe = RECIPE.model_copy(update={"num_iterations": 1, "minibatch_prompts": 12, "num_epochs": 2})
    start(open_stage(), compute, model, tokenizer, items, recipe)
    groups = len(seen) // 2
    for new, old, _ in seen[:groups]:
        assert torch.equal(new, old)
    assert any(not torch.equal(new, old) for new, old, _ in seen[groups:])


def experience_of(
    scores: list[float], finish_reasons: list[str], recipe: PpoRecipe
) -> tuple[ppo.Experience, Readings, Tensor]:
    lengths = (5, 2, 6)
    completions = [
        Completion([6] * length, [-1.0] * length, [-1.0] * length, reason)  # type: ignore[arg-type]
        for length, reason in zip(lengths, finish_reasons, strict=True)
    ]
    rollouts = Rollouts([[0, 6, 4]] * 3, completions)
    generator = torch.Generator().manual_seed(0)
    mask_NR = rollouts.mask()
    readings = Readings(*(torch.randn(3, 6, generator=generator) * mask_NR for _ in range(4)))
    score_N = torch.tensor(scores)
    return weigh(Gathered(rollouts, readings, score_N), recipe, kl_coef=recipe.kl_coef), readings, score_N


def test_trap_03_and_04_the_penalty_falls_once_on_cut_answers_alone_though_prompts_hold_ends() -> None:
    plain = RECIPE.model_copy(update={"gae_lambda": 1.0, "unfinished_penalty": 0.0})
    penal = plain.model_copy(update={"unfinished_penalty": 2.5})
    reasons = ["stop", "length", "stop"]  # the longest ended by itself; the short one was cut
    without, _, _ = experience_of([1.0, 1.0, 1.0], reasons, plain)
    with_penalty, _, _ = experience_of([1.0, 1.0, 1.0], reasons, penal)
    change_NR = without.return_NR - with_penalty.return_NR
    assert change_NR[0].abs().max() < 1e-6
    assert change_NR[2].abs().max() < 1e-6
    assert change_NR[1, :2].tolist() == pytest.approx([2.5, 2.5])
    assert change_NR[1, 2:].abs().max() == 0.0


def test_trap_09_the_first_tokens_return_is_score_minus_beta_kl_of_the_whole_answer() -> None:
    recipe = RECIPE.model_copy(update={"gae_lambda": 1.0, "kl_coef": 0.3})
    experience, readings, score_N = experience_of([1.0, -2.0, 0.5], ["stop"] * 3, recipe)
    kl_N = (readings.logprob_NR - readings.reference_logprob_NR).sum(1)
    torch.testing.assert_close(experience.return_NR[:, 0], score_N - 0.3 * kl_N)
    buffer = Buffer()
    buffer.fill(experience.gathered)
    assert describe(experience, recipe, buffer)["kl"] == pytest.approx(kl_N.mean().item(), rel=1e-5)


def test_trap_19_constant_rewards_push_nowhere(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    recipe = RECIPE.model_copy(update={"unfinished_penalty": 0.0, "kl_coef": 0.0})
    lengths = (5, 2, 6)
    completions = [Completion([6] * n, [0.0] * n, [0.0] * n, "stop") for n in lengths]
    rollouts = Rollouts([[0, 6, 4]] * 3, completions)
    constant = rollouts.mask() * 3.0
    zeros = torch.zeros(3, 6)
    readings = Readings(zeros, zeros, constant, zeros)
    experience = weigh(Gathered(rollouts, readings, torch.full((3,), 3.0)), recipe, kl_coef=recipe.kl_coef)
    assert experience.advantage_NR.abs().max() == 0.0


def test_trap_21_the_accumulated_gradient_is_ppos_plus_gamma_times_pretrainings(
    model: LanguageModel, items: EncodedItems, compute: Compute
) -> None:
    batch = next(PackedBatches(items, row_length=32, batch_rows=2, seed=0, pad_id=1))
    pretraining = differentiate({"ptx": row_parts(model, batch, compute, micro_batch_rows=8)})["ptx"]
    practice = [torch.full_like(p, 0.01) for p in model.parameters()]
    parts = row_parts(model, batch, compute, micro_batch_rows=8, coefficient=27.8)
    done = {"policy": Differentiated(0.5, practice), **differentiate({"ptx": parts})}
    numbers = add_policy_gradient(model, done, 27.8)
    for parameter, first, second in zip(model.parameters(), practice, pretraining.gradient, strict=True):
        torch.testing.assert_close(parameter.grad, first + 27.8 * second, rtol=1e-4, atol=1e-5)
    assert numbers["policy_loss"] == 0.5
    assert numbers["ptx_loss"] == pytest.approx(pretraining.loss, rel=1e-5)
    assert numbers["ptx_ratio"] == pytest.approx(27.8 * length(pretraining.gradient) / length(practice), rel=1e-3)


def test_trap_21_to_a_target_ratio_the_pretraining_gradient_keeps_its_direction(
    model: LanguageModel, items: EncodedItems, compute: Compute
) -> None:
    batch = next(PackedBatches(items, row_length=32, batch_rows=2, seed=0, pad_id=1))
    plain = differentiate({"ptx": row_parts(model, batch, compute, micro_batch_rows=8)})["ptx"]
    practised = [torch.full_like(p, 0.01) for p in model.parameters()]
    parts = row_parts(model, batch, compute, micro_batch_rows=8, coefficient=5.0)
    done = {"policy": Differentiated(0.5, practised), **differentiate({"ptx": parts})}
    numbers = add_policy_gradient(model, done, 5.0, target_ratio=0.25)
    added = [parameter.grad - 0.01 for parameter in model.parameters() if parameter.grad is not None]
    assert length(added) == pytest.approx(0.25 * length(practised), rel=1e-4)
    along = sum((one * other).sum().item() for one, other in zip(added, plain.gradient, strict=True))
    assert along == pytest.approx(length(added) * length(plain.gradient), rel=1e-4)
    assert numbers["ptx_ratio"] == pytest.approx(0.25)
    assert numbers["ptx_coef"] == pytest.approx(0.25 * length(practised) / length(plain.gradient), rel=1e-4)
    assert numbers["ptx_loss"] == pytest.approx(plain.loss, rel=1e-5)


def test_trap_22_the_run_steers_beta_by_its_own_kl_and_pays_it(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    update = {"kl_controller": "adaptive", "kl_target": 0.05, "kl_horizon": 100.0, "learning_rate": 1e-2}
    stage = open_stage()
    start(stage, compute, model, tokenizer, items, RECIPE.model_copy(update=update))
    kl, coef, reward, shaped, finished = (
        metrics_of(stage, name) for name in ("kl", "kl_coef", "reward", "rlhf_reward", "finished")
    )
    beta = RECIPE.kl_coef
    for step in range(RECIPE.num_iterations):
        assert coef[step] == pytest.approx(beta, rel=1e-9)
        paid = reward[step] - RECIPE.unfinished_penalty * (1 - finished[step]) - beta * kl[step]
        assert shaped[step] == pytest.approx(paid, abs=1e-5)
        beta *= 1 + min(max(kl[step] / 0.05 - 1, -0.2), 0.2) * RECIPE.batch_prompts / 100.0
    assert len(set(coef)) == RECIPE.num_iterations


def test_trap_21_one_optimizer_step_a_minibatch_and_the_stated_number_of_pretraining_rows(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps, rows = [], []
    step, parts_of = Optimizer.step, practice.row_parts
    monkeypatch.setattr(Optimizer, "step", lambda self, rate: steps.append(rate) or step(self, rate))
    monkeypatch.setattr(
        practice,
        "row_parts",
        lambda policy, batch, *rest, **named: (
            rows.append(len(batch.tokens_BT)) or parts_of(policy, batch, *rest, **named)
        ),
    )
    start(open_stage(), compute, model, tokenizer, items)
    num_minibatches = 4 * 2 * 2  # iterations, epochs, minibatches
    assert len(steps) == 2 * num_minibatches  # policy and value
    assert rows == [2] * num_minibatches  # 0.34 · 6, rounded


def test_trap_21_without_gamma_no_document_is_read_and_nothing_else_differs(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
) -> None:
    outcomes = []
    for name, update in (("a", {"ptx_ratio": 0.34}), ("b", {"ptx_ratio": 5.0, "ptx_row_length": 16})):
        recipe = RECIPE.model_copy(update={"ptx_coef": 0.0, "num_iterations": 2, **update})
        train = lambda stage, recipe=recipe: start(stage, compute, model, tokenizer, items, recipe)  # noqa: E731
        outcomes.append(outcome_after_kills(train, name))
    assert_same_bits(*outcomes)


def test_trap_23_the_reference_never_moves(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    players = []
    gather = Learner.gather
    monkeypatch.setattr(
        Learner, "gather", lambda *given, **named: players.append(gather(*given, **named)) or players[-1]
    )
    start(open_stage(), compute, model, tokenizer, items)
    (seen,) = players
    assert_same_bits(dict(seen.reference.named_parameters()), dict(model.named_parameters()))
    averages = seen.average.tensors()
    assert any(not torch.equal(averages[name], weight) for name, weight in model.named_parameters())


def test_trap_07_the_recipe_has_no_way_to_warp_sampling() -> None:
    assert {"top_p", "top_k", "min_length", "greedy"}.isdisjoint(PpoRecipe.model_fields)


def test_the_weights_that_the_second_judge_likes_best_are_saved(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    """A judge that dislikes whatever training brings keeps the model as it was, and stops by patience."""
    calls = []

    def souring(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        calls.append(len(responses))
        return [-float(len(calls))] * len(responses)

    stage = open_stage()
    recipe = RECIPE.model_copy(update={"judge_iterations": 1, "patience": 2})
    metrics = start(stage, compute, model, tokenizer, items, recipe, judge=souring)
    assert metrics["stop_reason"] == "patience"
    assert metrics["iterations"] == 2
    assert metrics["kept_iteration"] == 0
    saved = load_language_model(stage.folder)
    assert_same_bits(dict(saved.named_parameters()), dict(model.named_parameters()))


def test_beyond_the_kl_budget_training_stops(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    recipe = RECIPE.model_copy(update={"judge_iterations": 1, "kl_budget": 1e-6, "learning_rate": 1e-2})
    metrics = start(open_stage(), compute, model, tokenizer, items, recipe)
    assert metrics["stop_reason"] == "kl_budget"
    assert metrics["kept_iteration"] == 0


def test_minibatches_hold_every_answer_once_an_epoch_and_differ_between_epochs() -> None:
    lengths = [10 + number for number in range(12)]
    first, second = (minibatches(lengths, RECIPE, seed=seed) for seed in (0, 1))
    for plan in (first, second):
        assert sorted(index for minibatch in plan for group in minibatch for index in group) == list(range(12))
        assert [sum(map(len, minibatch)) for minibatch in plan] == [6, 6]
        assert all(
            len(group) == 1 or sum(lengths[index] for index in group) <= 60 for minibatch in plan for group in minibatch
        )
    assert first != second


#: Fields that must not change what is learned: they cut the same work differently or say when to save.
NEUTRAL = {"micro_batch_tokens", "rollout_rows", "checkpoint_iterations", "roles"}
OTHER: dict[str, Any] = {
    "num_iterations": 3,
    "batch_prompts": 6,
    "minibatch_prompts": 4,
    "num_epochs": 1,
    "max_new_tokens": 3,
    "temperature": 0.7,
    "learning_rate": 1e-4,
    "value_learning_rate": 3e-2,
    "warmup_iterations": 0,
    "kl_coef": 3.0,
    "clip": 0.001,
    "value_clip": 0.001,
    "discount": 0.5,
    "gae_lambda": 0.2,
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
    "kl_controller": "adaptive",
    "ptx_weight": "target_ratio",
    "staleness": 1,
}
#: Fields that matter where another has a certain value.
DEPENDENT: dict[str, tuple[dict[str, Any], Any]] = {
    "kl_target": ({"kl_controller": "adaptive", "num_iterations": 3, "learning_rate": 3e-2}, 1e-3),
    "kl_horizon": ({"kl_controller": "adaptive"}, 10.0),
    "ptx_target_ratio": ({"ptx_weight": "target_ratio"}, 3.0),
    "importance_cap": ({"staleness": 1, "learning_rate": 3e-2}, 1.0),
}


def test_trap_28_every_field_of_the_recipe_changes_the_run(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    assert OTHER.keys() | NEUTRAL | DEPENDENT.keys() == PpoRecipe.model_fields.keys()
    small = {
        "num_iterations": 2,
        "judge_iterations": 2,
        "batch_prompts": 4,
        "minibatch_prompts": 2,
        "max_new_tokens": 4,
    }
    base = RECIPE.model_copy(update=small)
    chance = {"judge": 0}

    def souring(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        chance["judge"] += 1
        return [-float(chance["judge"])] * len(responses)

    def trace(name: str, recipe: PpoRecipe) -> str:
        chance["judge"] = 0
        stage = open_stage(name)
        metrics = start(stage, compute, model, tokenizer, items, recipe, judge=souring)
        return (stage.run.folder / "metrics.jsonl").read_text() + json.dumps(metrics)

    plain = trace("plain", base)
    assert trace("again", base) == plain
    for field, value in OTHER.items():
        assert trace(field, base.model_copy(update={field: value})) != plain, field
    for field, (where, value) in DEPENDENT.items():
        without, with_value = (base.model_copy(update={**where, **more}) for more in ({}, {field: value}))
        assert trace(f"{field} alone", without) != trace(field, with_value), field
