"""The synthetic labelers follow Bradley-Terry, P(a over b) = σ(u_a - u_b): the best possible accuracy is known."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence

import pytest
import torch
from tests.training.conftest import NAMES, TRADES, Open, assert_same_bits
from torch import Tensor

from sanbai.data.conversations import Conversation
from sanbai.data.rankings import Ranking
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import DataError
from sanbai.foundation.stage import Stage
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.ranked_prompts import collect_ranked_prompts, split_by_prompt
from sanbai.training.reward import RewardRecipe, num_reward_steps, train_reward
from sanbai.training.reward_model import load_reward_model

RECIPE = RewardRecipe(
    batch_prompts=8,
    micro_batch_tokens=400,
    learning_rate=5e-3,
    warmup_steps=3,
    validation_share=0.2,
    max_prompt_tokens=32,
    max_response_tokens=24,
    evaluate_steps=5,
    checkpoint_steps=3,
)
UTILITY = dict(zip(TRADES, (-4.0, -2.0, 0.0, 2.0, 4.0), strict=True))


def question(number: int) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": f"{number}: what is {NAMES[number % 5]}?"},)


def labeled(num_prompts: int, *, noisy: bool = True, seed: int = 0) -> list[Ranking]:
    """One ranking a prompt; Gumbel noise on the utilities gives Bradley-Terry choices between any two."""
    chance = random.Random(seed)
    rankings = []
    for number in range(num_prompts):
        answers = chance.sample(TRADES, 4)
        noise = [-math.log(-math.log(chance.random())) if noisy else 0.0 for _ in answers]
        seen = [UTILITY[trade] + extra for trade, extra in zip(answers, noise, strict=True)]
        order = sorted(range(4), key=lambda index: -seen[index])
        responses = tuple(f"a {trade}" for trade in answers)
        rankings.append(Ranking(f"{number}", question(number), responses, tuple((i,) for i in order), "simulated"))
    return rankings


def start(
    stage: Stage,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    demonstrations: list[Conversation],
    rankings: Sequence[Ranking],
    recipe: RewardRecipe = RECIPE,
) -> dict[str, float]:
    return train_reward(
        stage,
        recipe,
        compute,
        model=model,
        tokenizer=tokenizer,
        rankings=rankings,
        demonstrations=demonstrations,
    )


def test_the_model_ranks_as_the_utilities_do_and_comes_near_the_noise_ceiling(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    demonstrations: list[Conversation],
) -> None:
    stage = open_stage()
    metrics = start(stage, compute, model, tokenizer, demonstrations, labeled(200))
    reward = load_reward_model(stage.folder, compute)
    scores = reward.score_answers(tokenizer, [(question(1000), f"a {trade}") for trade in TRADES])
    assert scores == sorted(scores)
    pairs = [(UTILITY[a], UTILITY[b]) for a in TRADES for b in TRADES if UTILITY[a] > UTILITY[b]]
    ceiling = sum(1 / (1 + math.exp(b - a)) for a, b in pairs) / len(pairs)
    assert metrics["validation_accuracy"] > 0.95 * ceiling
    assert abs(metrics["demonstration_mean"]) < 1e-6
    assert metrics["num_prompts"] + metrics["num_validation_prompts"] == 200


def test_labels_without_a_message_teach_nothing(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    demonstrations: list[Conversation],
) -> None:
    """The control: rankings by coin toss leave held-out accuracy at one half."""
    chance = random.Random(3)
    tossed = [
        Ranking(each.id, each.messages, each.responses, tuple((i,) for i in chance.sample(range(4), 4)), "coin")
        for each in labeled(120)
    ]
    metrics = start(open_stage(), compute, model, tokenizer, demonstrations, tossed)
    num_prompts = metrics["num_validation_prompts"]
    assert abs(metrics["validation_accuracy"] - 0.5) < 3 * 0.5 / math.sqrt(2 * num_prompts)


def test_trap_25_killed_it_ends_in_the_same_bits(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    demonstrations: list[Conversation],
) -> None:
    rankings = labeled(60)

    def train(stage: Stage) -> object:
        return start(stage, compute, model, tokenizer, demonstrations, rankings)

    assert_same_bits(outcome_after_kills(train, "killed", (2, 5)), outcome_after_kills(train, "undisturbed"))


def test_trap_20_every_prompt_and_every_different_answer_is_read_exactly_once_an_epoch(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    demonstrations: list[Conversation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rankings = labeled(20)
    twice = Ranking("again", question(0), rankings[0].responses, ((0, 1, 2), (3,)), "another")
    prompts_read = answers_read = 0
    forward = ScalarModel.forward

    def counting(self: ScalarModel, tokens_BT: Tensor, **arguments: Tensor) -> Tensor:
        nonlocal prompts_read, answers_read
        if torch.is_grad_enabled():
            prompts_read += int(arguments["segments_BT"].max(1).values.sum())
            branches_BT = arguments["branches_BT"]
            answers_read += int(((branches_BT[:, 1:] > branches_BT[:, :-1]) & (branches_BT[:, 1:] > 0)).sum())
        return forward(self, tokens_BT, **arguments)

    monkeypatch.setattr(ScalarModel, "forward", counting)
    recipe = RECIPE.model_copy(update={"validation_share": 0.0})
    start(open_stage(), compute, model, tokenizer, demonstrations, [*rankings, twice], recipe)
    assert prompts_read == 20
    assert answers_read == 20 * 4


def test_trap_20_rankings_of_a_prompt_become_one_element_with_counted_preferences(tokenizer: Tokenizer) -> None:
    first = Ranking("1", question(0), ("a baker", "a smith", "a baker"), ((0,), (1, 2)), "x")
    second = Ranking("2", question(0), ("a smith", "a baker", "a potter"), ((1,), (0,), (2,)), "y")
    (element,) = collect_ranked_prompts(tokenizer, [first, second], max_prompt_tokens=32, max_response_tokens=24)
    texts = [tokenizer.decode([*element.tree.prompt, *answer]) for answer in element.tree.answers]
    assert [text.rpartition("?")[2] for text in texts] == ["a baker", "a smith", "a potter"]
    # x: baker > smith; baker > baker says nothing. y: baker > smith > potter.
    assert element.preference_KK.tolist() == [[0, 2, 1], [0, 0, 1], [0, 0, 0]]


def test_rankings_of_ties_alone_are_refused(tokenizer: Tokenizer) -> None:
    tied = Ranking("1", question(0), ("a", "b"), ((0, 1),), "x")
    with pytest.raises(DataError, match="no ranking places"):
        collect_ranked_prompts(tokenizer, [tied], max_prompt_tokens=32, max_response_tokens=24)


def test_trap_20_no_prompt_is_both_trained_on_and_held_out(tokenizer: Tokenizer) -> None:
    elements = collect_ranked_prompts(tokenizer, labeled(100), max_prompt_tokens=32, max_response_tokens=24)
    training, held_out = split_by_prompt(elements, 0.3, seed=0)
    assert {element.key for element in training}.isdisjoint(element.key for element in held_out)
    assert len(training) + len(held_out) == 100
    assert 15 <= len(held_out) <= 45
    fewer, _ = split_by_prompt(elements[:50], 0.3, seed=0)
    assert {element.key for element in fewer} <= {element.key for element in training}  # others do not matter


def test_trap_15_the_outcome_does_not_depend_on_the_micro_batch(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    demonstrations: list[Conversation],
) -> None:
    losses = []
    for max_tokens in (50, 100_000):
        stage = open_stage(str(max_tokens))
        recipe = RECIPE.model_copy(update={"micro_batch_tokens": max_tokens})
        start(stage, compute, model, tokenizer, demonstrations, labeled(24), recipe)
        rows = [json.loads(line) for line in (stage.run.folder / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_number_of_steps_covers_every_prompt_once_an_epoch() -> None:
    assert num_reward_steps(RECIPE, 16) == 2
    assert num_reward_steps(RECIPE, 17) == 3
    assert num_reward_steps(RECIPE.model_copy(update={"num_epochs": 2}), 17) == 5


def test_max_steps_bounds_the_work_however_many_rankings_there_are() -> None:
    capped = RECIPE.model_copy(update={"max_steps": 4})
    assert [num_reward_steps(capped, number) for number in (17, 32, 40, 4_000)] == [3, 4, 4, 4]
