"""Here an answer is safe if nobody in it is a smith, and specific if it names whom it was asked about."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
import torch
from tests.training.conftest import NAMES, TRADES, Open, assert_same_bits
from torch import Tensor

from sanbai.data.attributes import RatedAnswer
from sanbai.data.conversations import Conversation
from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import DataError
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model
from sanbai.model.vocabulary import extend_vocabulary
from sanbai.objectives.language import next_token_loss
from sanbai.text.chat_template import encode_conversation
from sanbai.text.reserved import RATING_MARKERS
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.gradients import differentiate
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.self_judge import (
    JudgedAnswer,
    SelfJudgeRecipe,
    encode_rated,
    probabilities,
    rating_parts,
    train_self_judge,
)
from sanbai.training.trees import Tree

RECIPE = SelfJudgeRecipe(
    num_epochs=1,
    batch_answers=16,
    micro_batch_tokens=256,
    learning_rate=3e-3,
    warmup_steps=2,
    demonstration_share=0.5,
    batch_rows=2,
    row_length=64,
    max_prompt_tokens=40,
    validation_share=0.25,
    evaluate_steps=3,
    checkpoint_steps=1,
)


def rated(num: int = 120) -> list[RatedAnswer]:
    chance = random.Random(3)
    answers = []
    for number in range(num):
        asked, named, trade = chance.choice(NAMES), chance.choice(NAMES), chance.choice(TRADES)
        question = f"What is {asked}? {number // 2}"
        attributes = {
            "sensible": True,
            "specific": asked == named,
            **({"interesting": trade == "baker"} if asked == named else {}),
            "safe": trade != "smith",
            "grounded": trade != "potter",
        }
        messages = ({"role": "user", "content": question},)
        answers.append(RatedAnswer(messages, f"{named} is a {trade}.", attributes))  # type: ignore[arg-type]
    return answers


@pytest.fixture
def judging(tokenizer: Tokenizer) -> Tokenizer:
    return tokenizer.with_markers(list(RATING_MARKERS.values()))


@pytest.fixture
def judge(model: LanguageModel, judging: Tokenizer) -> LanguageModel:
    return extend_vocabulary(model, judging.vocab_size, torch_generator(7, "new"))


def start(
    stage: Stage,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    recipe: SelfJudgeRecipe = RECIPE,
    answers: list[RatedAnswer] | None = None,
) -> dict[str, Any]:
    return train_self_judge(
        stage,
        recipe,
        compute,
        model=model,
        tokenizer=tokenizer,
        answers=rated() if answers is None else answers,
        demonstrations=items,
    )


def elements(judging: Tokenizer, num: int = 6) -> list[JudgedAnswer]:
    by_prompt = encode_rated(judging, rated(num), max_prompt_tokens=40, max_tokens=64)
    return [element for found in by_prompt.values() for element in found]


def alone(model: LanguageModel, tree: Tree, branch: tuple[int, ...]) -> Tensor:
    """Log-probabilities of what comes after context, answer and one attribute, without any other."""
    row = torch.tensor([[*tree.prompt, branch[0]]])
    return torch.log_softmax(model(row)[0, -1].detach().double(), -1)


def test_an_element_is_context_answer_end_attribute_rating(judging: Tokenizer) -> None:
    (element,) = elements(judging, 1)
    (answer,) = rated(1)
    ids = judging.rating
    text = judging.decode(element.tree.prompt, skip_reserved=False)
    question = answer.messages[0]["content"]
    assert text == f"<|end_of_text|><|user|>{question}<|end|><|assistant|>{answer.response}<|end|>"
    assert element.attributes == tuple(answer.attributes)
    asked = [(getattr(ids, name), ids.yes if holds else ids.no) for name, holds in answer.attributes.items()]
    assert list(element.tree.answers) == asked


def test_the_loss_is_the_mean_over_ratings_and_over_nothing_else(
    judge: LanguageModel, judging: Tokenizer, compute: Compute
) -> None:
    batch = elements(judging)
    surprises = [
        -alone(judge, element.tree, branch)[branch[1]].item() for element in batch for branch in element.tree.answers
    ]
    for max_tokens in (1000, 1):  # together, one by one
        parts = rating_parts(judge, batch, compute, max_tokens, coefficient=0.5)
        found = differentiate({"loss": parts})["loss"].loss
        assert found == pytest.approx(0.5 * sum(surprises) / len(surprises), rel=1e-5)


def test_a_probability_is_of_yes_among_yes_and_no_and_no_attribute_sees_another(
    judge: LanguageModel, judging: Tokenizer, compute: Compute
) -> None:
    batch, ids = elements(judging), judging.rating
    found = probabilities(judge, judging, [element.tree for element in batch], compute, max_tokens=100)
    for element, probability in zip(batch, found, strict=True):
        for branch, yes in zip(element.tree.answers, probability, strict=True):
            logprob_V = alone(judge, element.tree, branch)
            expected = math.exp(logprob_V[ids.yes]) / (math.exp(logprob_V[ids.yes]) + math.exp(logprob_V[ids.no]))
            assert yes == pytest.approx(expected, rel=1e-4)


LEARNING = RECIPE.model_copy(
    update={
        "num_epochs": 14,
        "batch_answers": 8,
        "micro_batch_tokens": 4096,
        "learning_rate": 1e-2,
        "demonstration_share": 0.1,
        "batch_rows": 1,
        "evaluate_steps": 1000,
        "checkpoint_steps": 1000,
    }
)


def test_it_learns_what_people_said_and_from_shuffled_ratings_nothing(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage("learns")
    learned = start(stage, compute, model, tokenizer, items, LEARNING)
    assert learned["safe_auc"] > 0.9
    assert learned["grounded_auc"] > 0.9
    assert learned["num_validation_answers"] > 10
    assert learned["num_answers"] + learned["num_validation_answers"] == 120
    assert learned["num_left_out"] == 0
    saved = load_language_model(stage.folder)
    loaded = Tokenizer.load(stage.folder)
    assert loaded.can_rate
    assert saved.config.vocab_size == loaded.vocab_size == tokenizer.vocab_size + len(RATING_MARKERS)
    answers = rated()
    ratings = [answer.attributes for answer in answers]
    random.Random(0).shuffle(ratings)
    mixed = [replace(answer, attributes=other) for answer, other in zip(answers, ratings, strict=True)]
    control = start(open_stage("control"), compute, model, tokenizer, items, LEARNING, mixed)
    assert control["safe_auc"] < 0.8
    assert control["grounded_auc"] < 0.8


def test_with_demonstrations_beside_it_goes_on_answering(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    demonstrations: list[Conversation],
) -> None:
    encoded = [encode_conversation(tokenizer, conversation.messages) for conversation in demonstrations]

    def surprise(share: float) -> float:
        stage = open_stage(str(share))
        recipe = LEARNING.model_copy(update={"demonstration_share": share, "num_epochs": 4})
        start(stage, compute, model, tokenizer, items, recipe)
        saved = load_language_model(stage.folder)
        losses = []
        for each in encoded:
            row_BT, mask_BT = torch.tensor([each.tokens]), torch.tensor([each.loss_mask])
            losses.append(next_token_loss(saved(row_BT[:, :-1]), row_BT[:, 1:], mask_BT[:, 1:]).item())
        return fmean(losses)

    assert surprise(0.5) < 2.5
    assert surprise(0.0) > 4.0


def test_trap_25_killed_twice_it_ends_in_the_same_bits(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
) -> None:
    train = lambda stage: start(stage, compute, model, tokenizer, items)  # noqa: E731
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    assert_same_bits(outcome_after_kills(train, "killed", (2, 4)), outcome_after_kills(train, "undisturbed"))
    assert_same_bits(before, dict(model.named_parameters()))  # what it was made from is left as it was


def test_answers_that_do_not_fit_are_left_out_and_none_left_is_said(judging: Tokenizer) -> None:
    with pytest.raises(DataError, match="none of 6 rated answers is left; rate answers at /label"):
        encode_rated(judging, rated(6), max_prompt_tokens=40, max_tokens=12)


NEUTRAL = {"micro_batch_tokens", "micro_batch_rows", "checkpoint_steps"}
OTHER: dict[str, Any] = {
    "num_epochs": 2,
    "batch_answers": 8,
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "demonstration_share": 0.2,
    "batch_rows": 1,
    "row_length": 48,
    "max_prompt_tokens": 12,
    "validation_share": 0.5,
    "evaluate_steps": 1,
    "optimizer": OptimizerRecipe(beta2=0.5),
}


def test_trap_28_every_field_of_the_recipe_changes_the_run(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    assert OTHER.keys() | NEUTRAL == SelfJudgeRecipe.model_fields.keys()

    def trace(name: str, recipe: SelfJudgeRecipe) -> str:
        stage = open_stage(name)
        metrics = start(stage, compute, model, tokenizer, items, recipe, rated(80))
        return (stage.run.folder / "metrics.jsonl").read_text() + json.dumps(metrics)

    plain = trace("plain", RECIPE)
    assert trace("again", RECIPE) == plain
    for field, value in OTHER.items():
        assert trace(field, RECIPE.model_copy(update={field: value})) != plain, field
