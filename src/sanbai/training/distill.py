"""Distillation: a dense model learns from a model with experts, of its shape but for the experts.

Switch Transformer's recipe (Fedus et al. 2021, arXiv:2101.03961, section 4.2): the student's weights that the teacher
has too start as the teacher's, and the loss is a mix of the text's tokens and the teacher's probabilities. The teacher
reads as at use: at the capacity of evaluation, without noise.

Input: a teacher, shards, its tokenizer. Output: a dense model folder in Hugging Face layout. Metrics a step: `loss`,
`grad_norm`, `rate`; whatever `evaluate` returns every `evaluate_steps` and at the end.

Shapes: N positions to be learned, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbai.data.packing import Items, PackedBatch, PackedBatches
from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.errors import RecipeError
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed, torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import layout_for, save_model
from sanbai.objectives.distillation import distillation_loss
from sanbai.objectives.language import categorical_loss
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.checkpoint import Checkpoints, Weights, cursor_in
from sanbai.training.gradients import LossPart, add_gradient, differentiate
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.pretrain import Evaluate, measure
from sanbai.training.rows import learned_places, split_rows
from sanbai.training.schedule import Schedule, scheduled_rate


class DistillRecipe(RecipeSection):
    """Section `[distill]`: the dense student of a model with experts. Shares and start are Switch's best."""

    hard_share: float = Field(default=0.75, ge=0.0, le=1.0)
    """Weight of the text's tokens in the loss; the teacher's probabilities have the rest. With 1 the teacher is only
    where the student starts."""
    start: Literal["teacher", "random"] = "teacher"
    """`teacher`: attention, norms, embeddings and dense layers begin as the teacher's, only what stands for experts is
    drawn anew; `random`: everything is."""
    num_steps: int = Field(default=600_000, ge=1)
    """Optimizer steps."""
    row_length: int = Field(default=2048, ge=2)
    """Tokens a row; at most the model's `max_positions`."""
    batch_rows: int = Field(default=256, ge=1)
    """Rows a step."""
    micro_batch_rows: int = Field(default=4, ge=1)
    """Rows computed at once by a thread, with both models' logits in memory; changes memory and speed, and the
    mathematics only where a teacher's experts overflow."""
    learning_rate: float = Field(default=6e-4, gt=0.0, le=1.0)
    """Peak rate."""
    schedule: Schedule = "cosine"
    """What follows the warmup, as in `[pretrain]`."""
    warmup_steps: int = Field(default=715, ge=0)
    """Steps of a rising rate."""
    evaluate_steps: int = Field(default=1000, ge=1)
    """Steps between two held-out evaluations."""
    checkpoint_steps: int = Field(default=1000, ge=1)
    """Steps between two checkpoints; a killed run loses at most these."""
    optimizer: OptimizerRecipe = OptimizerRecipe(weight_decay=0.1)
    """Section `[distill.optimizer]`."""


def distill_misfit(config: ModelConfig) -> str:
    """Return why a model of this shape is no teacher, or nothing where it is one."""
    if config.sparse_layers == "none":
        return 'the teacher of [distill] wants experts: model.sparse_layers = "every_second" or "all"'
    if config.encoder_layers or config.bidirectional:
        return "the teacher of [distill] wants masks that look back and no encoder: the next token is learned"
    return ""


def student_shape(teacher: ModelConfig) -> ModelConfig:
    """Return the teacher's shape with a feed-forward of the same width in the place of each layer of experts."""
    return ModelConfig.model_validate({**teacher.model_dump(), "sparse_layers": "none"})


@torch.no_grad()
def copy_shared(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Overwrite the student's parameters that the teacher has under the same name.

    Returns:
        Their names; the others, which stand for experts, keep their values.
    """
    known = dict(teacher.named_parameters())
    shared = {name: parameter for name, parameter in student.named_parameters() if name in known}
    for name, parameter in shared.items():
        parameter.copy_(known[name])
    return list(shared)


def distill(
    stage: Stage,
    recipe: DistillRecipe,
    compute: Compute,
    *,
    teacher: LanguageModel,
    tokenizer: Tokenizer,
    items: Items,
    evaluate: Evaluate,
) -> dict[str, Any]:
    """Train the teacher's dense student and write it into the stage's folder.

    Args:
        stage: one step of its run is one optimizer step.
        recipe: section `[distill]`.
        compute: threads, precision, device; already applied to the process.
        teacher: with experts; not changed.
        tokenizer: the teacher's; saved beside the student.
        items: the documents to read.
        evaluate: called with the student in training; must not change it.

    Returns:
        The last evaluation, and how often the documents were read.

    Raises:
        RecipeError: the teacher has no experts, or does not only look back.
        Interrupted: asked to stop; the state is saved.
        ModelError: no stock architecture has the student's shape.
    """
    if problem := distill_misfit(teacher.config):
        raise RecipeError(problem)
    teacher = teacher.to(compute.device).eval().requires_grad_(requires_grad=False)
    student = LanguageModel(student_shape(teacher.config), torch_generator(stage.seed, "distill", "weights"))
    student = student.to(compute.device)
    layout_for(student)  # a shape that could not be saved is refused now, not after the training
    if recipe.start == "teacher":
        copy_shared(student, teacher)
    optimizer = Optimizer(student, recipe.optimizer)
    checkpoints = Checkpoints(stage.run, recipe.checkpoint_steps, model=Weights(student), optimizer=optimizer)
    step, state = checkpoints.resume()
    batches = PackedBatches(
        items,
        row_length=recipe.row_length,
        batch_rows=recipe.batch_rows,
        seed=derive_seed(stage.seed, "distill", "rows"),
        pad_id=tokenizer.reserved.pad,
        cursor=cursor_in(state, "rows"),
    )
    while step < recipe.num_steps:
        parts = distill_parts(
            student,
            teacher,
            next(batches),
            compute,
            micro_batch_rows=recipe.micro_batch_rows,
            hard_share=recipe.hard_share,
        )
        done = differentiate({"loss": parts})["loss"]
        add_gradient(student, done.gradient)
        rate = scheduled_rate(
            step,
            schedule=recipe.schedule,
            peak=recipe.learning_rate,
            num_steps=recipe.num_steps,
            warmup_steps=recipe.warmup_steps,
        )
        grad_norm = optimizer.step(rate)
        step += 1
        stage.run.record(step, loss=done.loss, grad_norm=grad_norm, rate=rate)
        if step % recipe.evaluate_steps == 0 and step < recipe.num_steps:
            stage.run.record(step, **measure(student, evaluate))
        checkpoints.after_step(step, {"rows": batches.cursor.to_state()})

    metrics = measure(student, evaluate)
    stage.run.record(step, **metrics)
    save_model(student, stage.folder, tokenizer)
    return {**metrics, "epochs": batches.epochs}


def distill_parts(
    student: LanguageModel,
    teacher: LanguageModel,
    batch: PackedBatch,
    compute: Compute,
    *,
    micro_batch_rows: int,
    hard_share: float,
) -> list[LossPart]:
    """Return the parts of a batch's mean distillation loss, nats a learned token.

    Args:
        student: carries the gradient.
        teacher: in evaluation mode; asked only where `hard_share` leaves it something.
        batch: rows with at least one token to be learned.
        compute: precision and device.
        micro_batch_rows: rows of a part.
        hard_share: weight of the text's tokens.
    """
    denominator = float(batch.loss_mask_BT.sum())

    def part_of(rows: PackedBatch) -> LossPart:
        def loss() -> Tensor:
            with autocast(compute):
                hidden_ND, target_N = learned_places(student, rows)
                logits_NV = student.logits(hidden_ND)
                if hard_share == 1:
                    return categorical_loss(logits_NV, target_N, denominator=denominator)
                with torch.no_grad():
                    teacher_logits_NV = teacher.logits(learned_places(teacher, rows)[0])
                return distillation_loss(
                    logits_NV, teacher_logits_NV, target_N, hard_share=hard_share, denominator=denominator
                )

        return LossPart(student, loss)

    return [part_of(rows) for rows in split_rows(batch, micro_batch_rows)]
