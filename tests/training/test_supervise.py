from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tests.training.conftest import Open, assert_same_bits
from torch import Tensor

from sanbai.data.conversations import Conversation
from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import DataError
from sanbai.foundation.stage import Stage
from sanbai.generation.answering import generate
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.supervise import SuperviseRecipe, encode_demonstrations, num_supervise_steps, supervise

RECIPE = SuperviseRecipe(
    num_epochs=12.0,
    row_length=64,
    batch_rows=1,
    micro_batch_rows=1,
    learning_rate=1e-2,
    pretraining_share=0.2,
    checkpoint_steps=4,
)


def start(
    stage: Stage,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    recipe: SuperviseRecipe = RECIPE,
) -> dict[str, object]:
    return supervise(
        stage,
        recipe,
        compute,
        model=copy.deepcopy(model),
        tokenizer=tokenizer,
        items=items,
        pretraining=items,
        evaluate=lambda _: {},
    )


def test_after_enough_demonstrations_the_model_answers_as_they_do(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    demonstrations: list[Conversation],
) -> None:
    recipe = RECIPE.model_copy(update={"num_epochs": 110.0, "batch_rows": 2, "warmup_steps": 8})
    learner = copy.deepcopy(model)
    metrics = supervise(
        open_stage(),
        recipe,
        compute,
        model=learner,
        tokenizer=tokenizer,
        items=items,
        pretraining=items,
        evaluate=lambda _: {},
    )
    assert metrics["steps"] == num_supervise_steps(recipe, items)
    for conversation in demonstrations:
        prompt = encode_prompt(tokenizer, conversation.messages[:-1])
        sampling = Sampling(temperature=0.0, max_new_tokens=20)
        (answer,) = generate(learner, [prompt], sampling, seeds=[0], stop_ids={tokenizer.reserved.end})
        assert answer.finish_reason == "stop"
        assert tokenizer.decode(answer.tokens) == conversation.messages[-1]["content"]


def test_trap_25_killed_it_ends_in_the_same_bits(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
) -> None:
    def train(stage: Stage) -> object:
        return start(stage, compute, model, tokenizer, items)

    assert_same_bits(outcome_after_kills(train, "killed", (6, 9)), outcome_after_kills(train, "undisturbed"))


def test_trap_26_what_the_user_says_is_read_and_not_learned(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    turns = ({"role": "user", "content": "Anna"}, {"role": "assistant", "content": "Bert"})
    items = encode_demonstrations(tokenizer, [Conversation("0", turns)], row_length=64)
    learned = [token for token, mask in zip(items.tokens(0), items.loss_mask(0), strict=True) if mask]
    assert learned == [*tokenizer.encode("Bert"), tokenizer.reserved.end]


def test_the_mixed_in_documents_change_the_outcome_only_if_their_share_is_not_zero(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
) -> None:
    def outcome(name: str, share: float) -> dict[str, Tensor]:
        recipe = RECIPE.model_copy(update={"pretraining_share": share, "num_epochs": 3.0})
        return outcome_after_kills(lambda stage: start(stage, compute, model, tokenizer, items, recipe), name)

    plain, mixed = outcome("plain", 0.0), outcome("mixed", 0.2)
    assert any(not torch.equal(plain[name], mixed[name]) for name in plain)


def test_demonstrations_too_long_for_a_row_are_left_out_and_none_left_is_said(
    tokenizer: Tokenizer, demonstrations: list[Conversation]
) -> None:
    longest = max(len(encode_demonstrations(tokenizer, [each], row_length=64).tokens(0)) for each in demonstrations)
    kept = encode_demonstrations(tokenizer, demonstrations, row_length=longest - 1)
    assert 0 < len(kept.lengths) < len(demonstrations)
    with pytest.raises(DataError, match="none of 5 demonstrations"):
        encode_demonstrations(tokenizer, demonstrations, row_length=3)
