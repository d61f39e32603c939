from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.training.conftest import Open, assert_same_bits
from tests.training.test_recipes import neutral, without_effect
from torch import Tensor

from sanbai.data.packing import EncodedItems, PackedBatches
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import RecipeError
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.distill import (
    DistillRecipe,
    copy_shared,
    distill,
    distill_misfit,
    distill_parts,
    student_shape,
)
from sanbai.training.gradients import differentiate
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.rows import learned_places, row_parts

RECIPE = DistillRecipe(
    num_steps=24,
    row_length=48,
    batch_rows=3,
    micro_batch_rows=2,
    learning_rate=1e-2,
    warmup_steps=2,
    evaluate_steps=7,
    checkpoint_steps=5,
)
OTHER: dict[str, Any] = {
    "hard_share": 0.25,
    "start": "random",
    "num_steps": 4,
    "row_length": 32,
    "batch_rows": 1,
    "learning_rate": 1e-3,
    "schedule": "inverse_root",
    "warmup_steps": 0,
    "evaluate_steps": 1,
    "optimizer": OptimizerRecipe(max_grad_norm=0.01),
}


@pytest.fixture
def teacher(config: ModelConfig) -> LanguageModel:
    """Qwen3's with an expert a token in the second of two layers, and opinions of its own."""
    changes = {
        "query_key_norm": True,
        "sparse_layers": "every_second",
        "experts": {"num_experts": 4, "dropless": True, "jitter": 0.3},
    }
    model = LanguageModel(
        ModelConfig.model_validate({**config.model_dump(), **changes}), torch_generator(0, "tests", "teacher")
    )
    with torch.no_grad():
        model.trunk.token_embedding.weight.mul_(20)
    return model.eval()


def start(
    stage: Stage,
    compute: Compute,
    teacher: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    recipe: DistillRecipe = RECIPE,
    evaluate: Callable[[LanguageModel], dict[str, float]] = lambda _: {"held_out": 1.0},
) -> dict[str, Any]:
    return distill(
        stage, recipe, compute, teacher=copy.deepcopy(teacher), tokenizer=tokenizer, items=items, evaluate=evaluate
    )


def divergence(teacher: LanguageModel, student: LanguageModel, items: EncodedItems) -> float:
    """Mean KL(teacher ‖ student) where the items teach something."""
    batch = next(PackedBatches(items, row_length=48, batch_rows=4, seed=0, pad_id=1))
    with torch.no_grad():
        thought, said = (model.logits(learned_places(model, batch)[0]).log_softmax(-1) for model in (teacher, student))
    return float(torch.nn.functional.kl_div(said, thought, reduction="batchmean", log_target=True))


def test_a_student_learns_its_teacher_s_probabilities_and_from_the_text_alone_it_does_not(
    open_stage: Open, compute: Compute, teacher: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    found = {}
    for hard_share in (0.0, 1.0):
        recipe = RECIPE.model_copy(
            update={"hard_share": hard_share, "start": "random", "num_steps": 90, "warmup_steps": 10}
        )
        stage = open_stage(f"share {hard_share}")
        start(stage, compute, teacher, tokenizer, items, recipe)
        found[hard_share] = divergence(teacher, load_language_model(stage.folder), items)
    student = LanguageModel(student_shape(teacher.config), torch_generator(0, "tests", "student"))
    fresh = divergence(teacher, student, items)
    assert fresh > 1.0
    assert found[0.0] < 0.3 * fresh
    assert found[1.0] > 0.9 * fresh


def test_killed_twice_it_ends_in_the_same_bits(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    teacher: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
) -> None:
    def train(stage: Stage) -> object:
        return start(stage, compute, teacher, tokenizer, items)

    assert_same_bits(outcome_after_kills(train, "killed", (8, 17)), outcome_after_kills(train, "undisturbed"))


def test_the_student_is_dense_and_starts_as_its_teacher_where_it_can(teacher: LanguageModel) -> None:
    student = LanguageModel(student_shape(teacher.config), torch_generator(0, "tests", "student"))
    fresh = copy.deepcopy(student)
    copied = copy_shared(student, teacher)
    known = dict(teacher.named_parameters())
    drawn = {name for name, _ in student.named_parameters()} - set(copied)
    assert drawn == {f"trunk.blocks.1.feed_forward.{name}.weight" for name in ("gate", "up", "down")}
    for name, parameter in student.named_parameters():
        assert torch.equal(parameter, known[name] if name in copied else fresh.get_parameter(name)), name
    assert not any("experts" in name for name, _ in student.named_parameters())


def test_the_teacher_keeps_its_weights_and_reads_without_noise(
    open_stage: Open, compute: Compute, teacher: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    given = copy.deepcopy(teacher).train()  # its jitter of 0.3 would show
    before = copy.deepcopy(teacher.state_dict())
    losses = []
    for name in ("first", "second"):
        stage = open_stage(name)
        recipe = RECIPE.model_copy(update={"num_steps": 1, "hard_share": 0.0})
        distill(stage, recipe, compute, teacher=given, tokenizer=tokenizer, items=items, evaluate=lambda _: {})
        losses.append(json.loads((stage.run.folder / "metrics.jsonl").read_text().splitlines()[0])["loss"])
    assert losses[0] == losses[1]
    for name, tensor in given.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_parts_add_up_to_the_whole_batch_and_the_text_s_part_is_the_usual_loss(
    compute: Compute, teacher: LanguageModel, items: EncodedItems
) -> None:
    student = LanguageModel(student_shape(teacher.config), torch_generator(0, "tests", "student"))
    batch = next(PackedBatches(items, row_length=40, batch_rows=4, seed=0, pad_id=1))

    def loss(hard_share: float, micro_batch_rows: int) -> float:
        parts = distill_parts(
            student, teacher, batch, compute, micro_batch_rows=micro_batch_rows, hard_share=hard_share
        )
        return differentiate({"loss": parts})["loss"].loss

    usual = differentiate({"loss": row_parts(student, batch, compute, micro_batch_rows=4)})["loss"].loss
    assert loss(1.0, 4) == pytest.approx(usual, rel=1e-5)
    assert loss(0.75, 1) == pytest.approx(loss(0.75, 4), rel=1e-5)
    assert loss(0.75, 4) == pytest.approx(0.75 * loss(1.0, 4) + 0.25 * loss(0.0, 4), rel=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_of_it(
    compute: Compute, config: ModelConfig, items: EncodedItems
) -> None:
    model = LanguageModel(config, torch_generator(0, "tests"))
    batch = next(PackedBatches(items, row_length=40, batch_rows=4, seed=0, pad_id=1))
    parts = distill_parts(model, copy.deepcopy(model).eval(), batch, compute, micro_batch_rows=4, hard_share=0.0)
    done = differentiate({"loss": parts})["loss"]
    assert done.loss == pytest.approx(0.0, abs=1e-6)
    assert max(tensor.abs().max().item() for tensor in done.gradient) < 1e-6


def test_a_model_without_experts_is_no_teacher(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    with pytest.raises(RecipeError, match="wants experts"):
        start(open_stage(), compute, model, tokenizer, items)
    assert "look back" in distill_misfit(
        ModelConfig.model_validate({**model.config.model_dump(), "sparse_layers": "all", "masks": ("full",)})
    )


def test_every_field_of_distillation_changes_the_run(
    open_stage: Open, compute: Compute, teacher: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    def trace(name: str, recipe: DistillRecipe) -> str:
        stage = open_stage(name)
        norm = lambda model: {"norm": model.head_weight.norm().item()}  # noqa: E731
        start(stage, compute, teacher, tokenizer, items, recipe, norm)
        return (stage.run.folder / "metrics.jsonl").read_text()

    plain = DistillRecipe(num_steps=3, row_length=48, batch_rows=2, warmup_steps=2, evaluate_steps=2)
    assert without_effect(plain, OTHER, trace) == neutral(DistillRecipe)
