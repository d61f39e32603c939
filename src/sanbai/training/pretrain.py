"""Pretraining: predict tokens of documents, the next ones or hidden ones, as the recipe's objective says.

Input: shards, a tokenizer. Output: a model folder in Hugging Face layout. Metrics a step: `loss` (nats a token),
`grad_norm` (before clipping), `rate`, with experts also those of `routing.py`; every `evaluate_steps` and at the end
whatever `evaluate` returns, usually held-out bits per byte.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from pydantic import Field
from torch import nn

from sanbai.data.masking import MASK_SHARE
from sanbai.data.packing import Items
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import RecipeError
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed, torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import layout_for, save_model
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.checkpoint import Checkpoints, Weights, cursor_in
from sanbai.training.gradients import add_gradient, differentiate
from sanbai.training.objective import ObjectiveName, loss_parts, misfit, new_model, open_batches
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.routing import Routing
from sanbai.training.schedule import Schedule, scheduled_rate

TrainedModel = TypeVar("TrainedModel", bound=nn.Module)
#: Model -> numbers for the log; given from a floor above.
Evaluate = Callable[[LanguageModel], Mapping[str, float]]


def measure(model: TrainedModel, evaluate: Callable[[TrainedModel], Mapping[str, float]]) -> dict[str, float]:
    """Return what `evaluate` says of a model in training, without the noise and at the capacity of evaluation."""
    model.eval()
    metrics = dict(evaluate(model))
    model.train()
    return metrics


class PretrainRecipe(RecipeSection):
    """Section `[pretrain]`. Defaults: GPT-3 125M's, 300 B tokens in batches of half a million (Brown et al. 2020)."""

    objective: ObjectiveName = "causal"
    """What is learned of a text. `causal`: each next token; `prefix`: the rest after a beginning that is seen whole;
    `masked`: hidden tokens, from both sides (BERT); `entity_masked`: the same, names and phrases hidden whole (ERNIE);
    `span_corruption`: spans that were cut out, written by a decoder (T5, Switch)."""
    next_sentence: bool = True
    """Whether masked models also learn if a second text follows the first; of no effect with other objectives."""
    mask_share: float = Field(default=MASK_SHARE, gt=0.0, lt=1.0)
    """Share of the tokens that masked models learn: BERT's 0.15 by default; large ones learned more from 0.4 (Wettig et
    al. 2022, arXiv:2202.08005)."""
    num_steps: int = Field(default=600_000, ge=1)
    """Optimizer steps."""
    row_length: int = Field(default=2048, ge=2)
    """Tokens a row; at most the model's `max_positions`."""
    batch_rows: int = Field(default=256, ge=1)
    """Rows a step."""
    micro_batch_rows: int = Field(default=16, ge=1)
    """Rows computed at once by a thread; the parts' gradients are added up: changes memory and speed, not the
    mathematics."""
    learning_rate: float = Field(default=6e-4, gt=0.0, le=1.0)
    """Peak rate."""
    schedule: Schedule = "cosine"
    """What follows the warmup. `cosine`: half of one, down to 10 % of the peak at the last step; `inverse_root`: the
    peak times sqrt(warmup_steps / steps), which knows no end (T5, Switch)."""
    warmup_steps: int = Field(default=715, ge=0)
    """Steps of a rising rate."""
    evaluate_steps: int = Field(default=1000, ge=1)
    """Steps between two held-out evaluations."""
    checkpoint_steps: int = Field(default=1000, ge=1)
    """Steps between two checkpoints; a killed run loses at most these."""
    optimizer: OptimizerRecipe = OptimizerRecipe(weight_decay=0.1)
    """Section `[pretrain.optimizer]`."""


def pretrain(
    stage: Stage,
    recipe: PretrainRecipe,
    compute: Compute,
    *,
    config: ModelConfig,
    tokenizer: Tokenizer,
    items: Items,
    evaluate: Callable[[Any], Mapping[str, float]],
    names: Collection[str] = (),
) -> dict[str, Any]:
    """Train a model from random weights and write it into the stage's folder.

    Args:
        stage: one step of its run is one optimizer step.
        recipe: section `[pretrain]`.
        compute: threads, precision, device; already applied to the process.
        config: the model's shape; the vocabulary is taken from the tokenizer.
        tokenizer: saved beside the model.
        items: the documents to read.
        evaluate: called with the model in training; must not change it.
        names: what `entity_masked` hides whole.

    Returns:
        The last evaluation, and how often the documents were read.

    Raises:
        RecipeError: the objective cannot be learned by a model of this shape.
        UsageError: the tokenizer was not trained for the objective.
        Interrupted: asked to stop; the state is saved.
        ModelError: no stock architecture has the shape.
    """
    if problem := misfit(recipe.objective, config):
        raise RecipeError(problem)
    config = config.with_vocabulary(tokenizer.vocab_size)
    weights = torch_generator(stage.seed, "pretrain", "weights")
    model = new_model(recipe.objective, config, weights, next_sentence=recipe.next_sentence).to(compute.device)
    layout_for(model)  # a shape that could not be saved is refused now, not after the training
    optimizer = Optimizer(model, recipe.optimizer)
    checkpoints = Checkpoints(stage.run, recipe.checkpoint_steps, model=Weights(model), optimizer=optimizer)
    step, state = checkpoints.resume()
    batches = open_batches(
        recipe.objective,
        items,
        tokenizer,
        row_length=recipe.row_length,
        batch_rows=recipe.batch_rows,
        seed=derive_seed(stage.seed, "pretrain", "rows"),
        cursor=cursor_in(state, "rows"),
        first_row=step * recipe.batch_rows,
        to_encoder=bool(config.encoder_layers),
        next_sentence=recipe.next_sentence,
        mask_share=recipe.mask_share,
        names=names,
    )
    while step < recipe.num_steps:
        routing = Routing()
        parts = loss_parts(
            model,
            next(batches),
            compute,
            micro_batch_rows=recipe.micro_batch_rows,
            noise_seed=derive_seed(stage.seed, "pretrain", "noise", step),
            routing=routing,
        )
        done = differentiate({"loss": parts})["loss"]
        add_gradient(model, done.gradient)
        rate = scheduled_rate(
            step,
            schedule=recipe.schedule,
            peak=recipe.learning_rate,
            num_steps=recipe.num_steps,
            warmup_steps=recipe.warmup_steps,
        )
        grad_norm = optimizer.step(rate)
        step += 1
        stage.run.record(step, loss=done.loss, grad_norm=grad_norm, rate=rate, **routing.metrics())
        if step % recipe.evaluate_steps == 0 and step < recipe.num_steps:
            stage.run.record(step, **measure(model, evaluate))
        checkpoints.after_step(step, {"rows": batches.cursor.to_state()})

    metrics = measure(model, evaluate)
    stage.run.record(step, **metrics)
    save_model(model, stage.folder, tokenizer)
    return {**metrics, "epochs": batches.epochs}
