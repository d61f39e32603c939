"""A field that nothing reads is worse than none: two values of every field must give two runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel
from tests.training.conftest import Open
from tests.training.test_reward import RECIPE as REWARD
from tests.training.test_reward import labeled

from sanbai.data.conversations import Conversation
from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.classify import ClassifyRecipe
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.pretrain import PretrainRecipe, pretrain
from sanbai.training.reward import RewardRecipe, train_reward
from sanbai.training.supervise import SuperviseRecipe, supervise

#: Fields that cut the same work differently, or say when to save.
NEUTRAL = {"micro_batch_rows", "micro_batch_tokens", "checkpoint_steps"}

PRETRAIN = PretrainRecipe(num_steps=3, row_length=48, batch_rows=2, warmup_steps=2, evaluate_steps=2)
OTHER_PRETRAIN: dict[str, Any] = {
    "objective": "prefix",
    "num_steps": 4,
    "row_length": 32,
    "batch_rows": 1,
    "learning_rate": 1e-3,
    "schedule": "inverse_root",
    "warmup_steps": 0,
    "evaluate_steps": 1,
    "optimizer": OptimizerRecipe(max_grad_norm=0.01),
}
SUPERVISE = SuperviseRecipe(num_epochs=4.0, row_length=64, batch_rows=2, evaluate_steps=2)
OTHER_SUPERVISE: dict[str, Any] = {
    "num_epochs": 5.5,
    "row_length": 48,
    "batch_rows": 1,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "pretraining_share": 0.4,
    "evaluate_steps": 1,
    "optimizer": OptimizerRecipe(beta1=0.1),
}
OTHER_REWARD: dict[str, Any] = {
    "num_epochs": 2,
    "max_steps": 1,
    "batch_prompts": 5,
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "validation_share": 0.4,
    "max_prompt_tokens": 8,
    "max_response_tokens": 3,
    "evaluate_steps": 1,
    "optimizer": OptimizerRecipe(epsilon=1e-2),
}


def without_effect(plain: BaseModel, others: dict[str, Any], trace: Callable[[str, Any], str]) -> list[str]:
    """Return the fields that leave a run as it is: those with no other value to try, and those that change nothing.

    Args:
        plain: the recipe to start from.
        others: another value for each field.
        trace: name of a run and its recipe -> all that the run recorded.
    """
    first = trace("plain", plain)
    untried = type(plain).model_fields.keys() - others.keys()
    unchanged = [field for field in others if trace(field, plain.model_copy(update={field: others[field]})) == first]
    unsteady = [] if trace("again", plain) == first else ["the same recipe, run again, differs"]
    return sorted([*untried, *unchanged, *unsteady])


def neutral(recipe: type[BaseModel]) -> list[str]:
    """Return the recipe's fields that must change nothing, or nothing that is recorded."""
    return sorted(NEUTRAL & recipe.model_fields.keys())


def test_trap_28_every_field_of_pretraining_changes_the_run(
    open_stage: Open, compute: Compute, config: ModelConfig, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    def trace(name: str, recipe: PretrainRecipe) -> str:
        stage = open_stage(name)
        pretrain(
            stage,
            recipe,
            compute,
            config=config.model_copy(update={"masks": ("prefix",)}),  # causal where no prefix is given
            tokenizer=tokenizer,
            items=items,
            evaluate=lambda model: {"norm": model.head_weight.norm().item()},
        )
        return (stage.run.folder / "metrics.jsonl").read_text()

    # `mask_share` and `next_sentence` are of masked objectives: test_objective.py tries them.
    of_masked = ["mask_share", "next_sentence"]
    assert without_effect(PRETRAIN, OTHER_PRETRAIN, trace) == sorted([*neutral(PretrainRecipe), *of_masked])


def test_trap_28_every_field_of_supervision_changes_the_run(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    def trace(name: str, recipe: SuperviseRecipe) -> str:
        stage = open_stage(name)
        supervise(
            stage,
            recipe,
            compute,
            model=copy.deepcopy(model),
            tokenizer=tokenizer,
            items=items,
            pretraining=items,
            evaluate=lambda model: {"norm": model.head_weight.norm().item()},
        )
        return (stage.run.folder / "metrics.jsonl").read_text()

    # `expert_dropout` is of models with experts: test_routing.py tries it.
    assert without_effect(SUPERVISE, OTHER_SUPERVISE, trace) == sorted([*neutral(SuperviseRecipe), "expert_dropout"])


def test_trap_28_every_field_of_the_reward_model_changes_the_run(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    demonstrations: list[Conversation],
) -> None:
    # The first answer of each is twice as long as the others: a limit can tell them apart.
    rankings = [
        replace(one, responses=(f"{one.responses[0]} {one.responses[0]}", *one.responses[1:])) for one in labeled(24)
    ]

    def trace(name: str, recipe: RewardRecipe) -> str:
        stage = open_stage(name)
        train_reward(
            stage,
            recipe,
            compute,
            model=model,
            tokenizer=tokenizer,
            rankings=rankings,
            demonstrations=demonstrations,
        )
        return (stage.run.folder / "metrics.jsonl").read_text()

    plain = REWARD.model_copy(update={"evaluate_steps": 2})
    assert without_effect(plain, OTHER_REWARD, trace) == neutral(RewardRecipe)


@pytest.mark.parametrize("recipe", [PretrainRecipe, SuperviseRecipe, ClassifyRecipe, RewardRecipe])
def test_every_field_is_described_for_the_reference(recipe: type[BaseModel]) -> None:
    assert all(field.description for field in recipe.model_fields.values())
