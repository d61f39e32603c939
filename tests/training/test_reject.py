"""Rewards here are known functions of the tokens, so that what is kept, and what imitating it brings, can be told."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pytest
from tests.training.conftest import KilledError, Open
from tests.training.test_recipes import without_effect

from sanbai.data.conversations import Conversation
from sanbai.data.packing import EncodedItems
from sanbai.data.prompts import Prompt
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import read_jsonl
from sanbai.foundation.seeds import derive_seed
from sanbai.foundation.stage import Stage
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model
from sanbai.objectives.best_of import best_of_kl_bound
from sanbai.text.chat_template import encode_prompt
from sanbai.text.reserved import ReservedIds
from sanbai.text.tokenizer import Tokenizer
from sanbai.training import reject
from sanbai.training.candidates import draw_candidates
from sanbai.training.reject import RejectRecipe, keep_best, num_reject_steps
from sanbai.training.rollouts import Score
from sanbai.training.supervise import SuperviseRecipe, encode_demonstrations, supervise

PROMPTS = [Prompt(f"p{number}", ({"role": "user", "content": f"Who is {number}?"},), "chat") for number in range(12)]
RECIPE = RejectRecipe(
    num_answers=4,
    max_new_tokens=5,
    supervise=SuperviseRecipe(num_epochs=12, row_length=48, batch_rows=4, learning_rate=3e-2, pretraining_share=0.0),
)
SAMPLING = Sampling(max_new_tokens=5)


@pytest.fixture(autouse=True)
def many_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained model hardly ever ends an answer: here a third of the vocabulary does."""
    monkeypatch.setattr(ReservedIds, "ends", lambda self: frozenset({self.end, *range(170, 270)}))


@pytest.fixture
def share_of_letters(tokenizer: Tokenizer) -> Score:
    letters = {token for token in range(tokenizer.vocab_size) if tokenizer.decode([token]).isalpha()}

    def share(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return [4 * sum(token in letters for token in response) / len(response) for response in responses]

    return share


def first_token(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
    """A second judge, with a taste of its own."""
    return [response[0] / 100 for response in responses]


def start(
    stage: Stage,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    reward: Score,
    recipe: RejectRecipe = RECIPE,
    prompts: Sequence[Prompt] = PROMPTS,
    *,
    max_prompt_tokens: int = 32,
) -> dict[str, Any]:
    return keep_best(
        stage,
        recipe,
        compute,
        policy=model,
        reward=reward,
        judge=first_token,
        tokenizer=tokenizer,
        prompts=prompts,
        max_prompt_tokens=max_prompt_tokens,
    )


def kept(stage: Stage) -> list[Conversation]:
    path = stage.folder / "demonstrations.jsonl.gz"
    return [Conversation.from_row(row, where=str(path)) for row in read_jsonl(path)]


def test_the_best_finished_answer_to_each_prompt_is_kept_with_its_conversation(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, share_of_letters: Score
) -> None:
    stage = open_stage()
    metrics = start(stage, compute, model, tokenizer, share_of_letters)
    drawn = draw_candidates(
        model,
        [encode_prompt(tokenizer, prompt.messages) for prompt in PROMPTS],
        share_of_letters,
        SAMPLING,
        compute,
        tokenizer,
        num_candidates=4,
        batch_size=64,
        seed=derive_seed(stage.seed, "reject", 0),
    )
    expected = []
    for place, prompt in enumerate(PROMPTS):
        rows = [
            row for row in range(4 * place, 4 * place + 4) if drawn.rollouts.completions[row].finish_reason == "stop"
        ]
        if rows:
            best = max(rows, key=lambda row: drawn.score_PK.flatten()[row].item())
            answer = tokenizer.decode(drawn.rollouts.completions[best].tokens)
            expected.append((prompt.id, (*prompt.messages, {"role": "assistant", "content": answer})))
    assert [(conversation.id, conversation.messages) for conversation in kept(stage)] == expected
    assert metrics["demonstrations"] == len(expected)
    assert metrics["kept_share"] == len(expected) / 12


def imitate(
    stage: Stage, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, demonstrations: list[Conversation]
) -> LanguageModel:
    items = encode_demonstrations(tokenizer, demonstrations, row_length=48)
    supervise(
        stage,
        RECIPE.supervise,
        compute,
        model=copy.deepcopy(model),
        tokenizer=tokenizer,
        items=items,
        pretraining=EncodedItems([]),
        evaluate=lambda model: {},
    )
    return load_language_model(stage.folder)


@pytest.mark.parametrize("chosen", ["by the reward", "by chance"])
def test_imitating_the_best_answers_raises_the_reward_and_imitating_any_does_not(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, share_of_letters: Score, chosen: str
) -> None:
    """By chance is the control: the same number of answers, the choice blind."""
    chance = random.Random(0)

    def blind(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return [chance.random() for _ in responses]

    recipe = RECIPE.model_copy(update={"num_answers": 16})
    prompts = [Prompt(f"{n}", ({"role": "user", "content": f"Who is {n}?"},), "chat") for n in range(40)]
    sampled = open_stage("sampled")
    reward = share_of_letters if chosen == "by the reward" else blind
    start(sampled, compute, model, tokenizer, reward, recipe, prompts)
    after = imitate(open_stage("imitated"), compute, model, tokenizer, kept(sampled))

    def mean_reward(policy: LanguageModel) -> float:
        encoded = [encode_prompt(tokenizer, prompt.messages) for prompt in PROMPTS]
        drawn = draw_candidates(
            policy, encoded, share_of_letters, SAMPLING, compute, tokenizer,
            num_candidates=16, batch_size=64, seed=9,
        )  # fmt: skip
        return drawn.score_PK.mean().item()

    gain = mean_reward(after) - mean_reward(model)
    if chosen == "by the reward":
        assert gain > 0.4
    else:
        assert gain < 0.2


def test_trap_25_killed_it_keeps_the_same_answers_and_numbers(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    share_of_letters: Score,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reject, "CHUNK_ANSWERS", 12)  # three prompts a step
    assert num_reject_steps(RECIPE, len(PROMPTS)) == 4
    stage = open_stage("killed")
    record = stage.run.record

    def fragile(step: int, **metrics: float) -> None:
        if step == 3:
            raise KilledError
        record(step, **metrics)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.run, "record", fragile)
        with pytest.raises(KilledError):
            start(stage, compute, model, tokenizer, share_of_letters)
    outcomes = []
    for name in ("killed", "undisturbed"):
        stage = open_stage(name)
        metrics = start(stage, compute, model, tokenizer, share_of_letters)
        outcomes.append((metrics, kept(stage), (stage.run.folder / "metrics.jsonl").read_text()))
    assert outcomes[0] == outcomes[1]


def test_the_curve_is_of_the_best_of_one_two_four_and_all(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, share_of_letters: Score
) -> None:
    stage = open_stage()
    recipe = RECIPE.model_copy(update={"num_answers": 6})
    metrics = start(stage, compute, model, tokenizer, share_of_letters, recipe)
    rows = [json.loads(line) for line in (stage.run.folder / "metrics.jsonl").read_text().splitlines()]
    by_num = metrics["reward_by_num"]
    assert list(by_num) == list(metrics["judge_reward_by_num"]) == ["1", "2", "4", "6"]
    assert by_num["1"] == pytest.approx(rows[0]["reward"], abs=1e-6)
    assert by_num["1"] < by_num["2"] < by_num["4"] < by_num["6"]
    assert metrics["kl_bound_by_num"]["4"] == best_of_kl_bound(4)
    # The second judge's taste is another: what the first prefers does not please it more.
    assert abs(metrics["judge_reward_by_num"]["6"] - metrics["judge_reward_by_num"]["1"]) < by_num["6"] - by_num["1"]


def test_answers_that_never_end_are_no_demonstrations(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    share_of_letters: Score,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ReservedIds, "ends", lambda self: frozenset())
    with pytest.raises(DataError, match="none of 48 answers ended before 5 tokens; raise"):
        start(open_stage(), compute, model, tokenizer, share_of_letters)


def test_the_numbers_of_a_chunk_are_those_of_its_answers(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, share_of_letters: Score
) -> None:
    stage = open_stage()
    start(stage, compute, model, tokenizer, share_of_letters)
    (row,) = [json.loads(line) for line in (stage.run.folder / "metrics.jsonl").read_text().splitlines()]
    answers = [tokenizer.encode(conversation.messages[-1]["content"]) for conversation in kept(stage)]
    assert row["step"] == 1
    assert row["kept_share"] == len(answers) / 12
    assert row["reward"] < row["best_reward"] <= 4.0
    assert 0 < row["finished"] <= 1
    assert 0 < row["different"] <= 1
    assert 1 <= row["best_length"] <= 5
    assert fmean(map(len, answers)) > 0


#: Fields that cut the same work differently, or that the pipeline reads: tests/cli/test_train.py tries them.
ELSEWHERE = ["num_prompts", "rollout_rows", "supervise"]
OTHER: dict[str, Any] = {"num_answers": 3, "max_new_tokens": 4, "temperature": 0.5}


def test_trap_28_every_field_of_the_recipe_changes_the_run(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, share_of_letters: Score
) -> None:
    def trace(name: str, recipe: RejectRecipe) -> str:
        stage = open_stage(name)
        metrics = start(stage, compute, model, tokenizer, share_of_letters, recipe)
        return (stage.run.folder / "metrics.jsonl").read_text() + json.dumps(metrics)

    assert without_effect(RECIPE, OTHER, trace) == ELSEWHERE
    assert trace("rows", RECIPE.model_copy(update={"rollout_rows": 5})) == trace("plain again", RECIPE)


def test_a_long_prompt_loses_its_beginning_and_its_demonstration_does_not(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, share_of_letters: Score
) -> None:
    long = [
        Prompt(one.id, ({"role": "user", "content": "before " * 9 + one.messages[0]["content"]},), "chat")
        for one in PROMPTS
    ]
    outcomes = []
    for name, limit in (("cut", 14), ("cut again", 14), ("whole", 50)):
        stage = open_stage(name)
        start(stage, compute, model, tokenizer, share_of_letters, prompts=long, max_prompt_tokens=limit)
        outcomes.append([conversation.messages for conversation in kept(stage)])
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert all(messages[0]["content"].startswith("before before") for messages in outcomes[0])
