"""The reward model: learn from rankings which answer people prefer.

A prompt with all its answers is one element of a batch: the prompt is read once, every answer once, every pair of them
counts (pairs spread over batches over-fit within one epoch, and read each answer K - 1 times).

Input: the supervised model, rankings, demonstrations. Output: a scalar model's folder with `calibration.json`. Metrics
a step: `loss` (nats a pair), `accuracy` on the batch's pairs, `grad_norm`, `rate`; every `evaluate_steps` and at the
end `validation_loss` and `validation_accuracy` on prompts that were not trained on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sanbai.data.conversations import Conversation
from sanbai.data.rankings import Ranking
from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.errors import DataError
from sanbai.foundation.parallel import map_parts
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed, torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.adapters.adapter import Adapted, add_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.adapters.shared import over_same_weights, place_models
from sanbai.model.heads import LanguageModel, ScalarModel, new_scalar_head
from sanbai.model.hugging_face import save_model
from sanbai.objectives.reward import pair_accuracy, ranking_loss
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.adapter_folder import NO_ADAPTER, merged, write_adapter
from sanbai.training.checkpoint import Checkpoints, Weights
from sanbai.training.gradients import LossPart, add_gradient, differentiate
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.ranked_prompts import (
    RankedPrompt,
    batch_of,
    collect_ranked_prompts,
    num_batches,
    split_by_prompt,
    stack_preferences,
    to_grid,
)
from sanbai.training.reward_model import calibrate, encode_answer, save_calibration
from sanbai.training.schedule import cosine_rate
from sanbai.training.sequences import group_by_tokens
from sanbai.training.trees import pack_trees


class RewardRecipe(RecipeSection):
    """Section `[reward]`. Defaults: InstructGPT's (Ouyang et al. 2022, appendix C.2)."""

    num_epochs: int = Field(default=1, ge=1, le=100)
    """How often the rankings are read; more than once over-fits."""
    max_steps: int = Field(default=1_000_000, ge=1)
    """Most steps: a late round with many rankings reads each less often and takes no longer than an early one."""
    batch_prompts: int = Field(default=64, ge=1)
    """Prompts a step, each with all its answers."""
    micro_batch_tokens: int = Field(default=16_384, ge=1)
    """Tokens computed at once; a prompt stays whole. Changes memory and speed, not the mathematics."""
    learning_rate: float = Field(default=9e-6, gt=0.0, le=1.0)
    """Peak rate; a half cosine takes it down to 10 %."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of a rising rate."""
    validation_share: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the prompts kept out of training, with all their rankings."""
    max_prompt_tokens: int = Field(default=1024, ge=8)
    """Longer prompts lose their beginning."""
    max_response_tokens: int = Field(default=1024, ge=1)
    """Longer answers are left out of their ranking."""
    evaluate_steps: int = Field(default=100, ge=1)
    """Steps between two evaluations on the held-out prompts."""
    checkpoint_steps: int = Field(default=100, ge=1)
    """Steps between two checkpoints."""
    optimizer: OptimizerRecipe = OptimizerRecipe()
    """Section `[reward.optimizer]`."""


def num_reward_steps(recipe: RewardRecipe, num_prompts: int) -> int:
    """Return the steps in which `num_prompts` training prompts are read `num_epochs` times, `max_steps` at most."""
    return min(recipe.max_steps, num_batches(num_prompts, size=recipe.batch_prompts, num_epochs=recipe.num_epochs))


def train_reward(
    stage: Stage,
    recipe: RewardRecipe,
    compute: Compute,
    *,
    model: LanguageModel,
    tokenizer: Tokenizer,
    rankings: Iterable[Ranking],
    demonstrations: Iterable[Conversation],
    adapter: AdapterRecipe = NO_ADAPTER,
) -> dict[str, Any]:
    """Train a reward model on rankings, set its zero by demonstrations, write it into the stage's folder.

    With LoRA only that and the head learn; it is written into `adapter/` too, for practice, where policy and reward
    models stand over the same weights.

    Args:
        stage: one step of its run is one optimizer step; its name enters the seed, so that two reward models of one
            run (the second judges the first) start apart.
        recipe: section `[reward]`.
        compute: threads, precision, device; already applied to the process.
        model: the supervised one; its weights stay as they are.
        tokenizer: saved beside the model.
        rankings: all that may be learned from, those of held-out labelers already left out.
        demonstrations: conversations whose last turn is the assistant's; their mean reward becomes 0.
        adapter: section `[adapter]`, LoRA or none; its dropout is not used.

    Returns:
        Validation loss, accuracy and pairs, prompts trained on, calibration.

    Raises:
        DataError: no strict preference, or no demonstration.
        Interrupted: asked to stop; the state is saved.
    """
    limits = {"max_prompt_tokens": recipe.max_prompt_tokens, "max_response_tokens": recipe.max_response_tokens}
    elements = collect_ranked_prompts(tokenizer, rankings, **limits)
    training, held_out = split_by_prompt(elements, recipe.validation_share, seed=stage.seed)
    scalar, adapted = _new_scalar(stage, model, adapter, compute)
    optimizer = Optimizer(scalar, recipe.optimizer)
    checkpoints = Checkpoints(stage.run, recipe.checkpoint_steps, model=Weights(scalar), optimizer=optimizer)
    step, _ = checkpoints.resume()

    num_steps = num_reward_steps(recipe, len(training))
    while step < num_steps:
        batch = batch_of(
            training,
            step,
            size=recipe.batch_prompts,
            num_epochs=recipe.num_epochs,
            seed=derive_seed(stage.seed, stage.name, "order"),
        )
        loss, accuracy = rank_batch(scalar, batch, compute, max_tokens=recipe.micro_batch_tokens, learn=True)
        rate = cosine_rate(step, peak=recipe.learning_rate, num_steps=num_steps, warmup_steps=recipe.warmup_steps)
        grad_norm = optimizer.step(rate)
        step += 1
        stage.run.record(step, loss=loss, accuracy=accuracy, grad_norm=grad_norm, rate=rate)
        if step % recipe.evaluate_steps == 0 and step < num_steps:
            stage.run.record(step, **validate(scalar, held_out, compute, recipe.micro_batch_tokens))
        checkpoints.after_step(step, {})

    metrics = validate(scalar, held_out, compute, recipe.micro_batch_tokens)
    stage.run.record(step, **metrics)
    calibration = calibrate(scalar, _demonstration_rows(tokenizer, demonstrations, recipe.max_prompt_tokens), compute)
    if adapted is None:
        save_model(scalar, stage.folder, tokenizer)
    else:
        write_adapter(adapted, stage.folder, base=stage.parents.get("supervised"))
        base = ScalarModel.on_trunk(model.trunk, copy.deepcopy(scalar.head))
        save_model(merged(base, stage.folder), stage.folder, tokenizer)
    save_calibration(stage.folder, calibration)
    return {
        **metrics,
        "num_prompts": len(training),
        "num_validation_prompts": len(held_out),
        "num_validation_pairs": int(sum(element.preference_KK.sum() for element in held_out)),
        "demonstration_mean": calibration.mean_after,
        "demonstration_deviation": calibration.deviation,
    }


def _new_scalar(
    stage: Stage, model: LanguageModel, adapter: AdapterRecipe, compute: Compute
) -> tuple[ScalarModel, Adapted | None]:
    """Return a scalar model with a new head: a copy of a model's trunk, or a fresh adapter over its weights."""
    generator = torch_generator(stage.seed, stage.name, "head")
    if adapter.method == "none":
        return ScalarModel.from_language_model(model, generator).to(compute.device), None
    scalar = ScalarModel.on_trunk(over_same_weights(model.trunk), new_scalar_head(model.config.width, generator))
    adapted = add_adapter(scalar, adapter, torch_generator(stage.seed, stage.name, "adapter"))
    scalar.head.requires_grad_(requires_grad=True)
    placed: ScalarModel
    (placed,) = place_models([scalar], device=compute.device, product_dtype=compute.product_dtype)
    return placed, replace(adapted, model=placed)


def rank_batch(
    model: ScalarModel, batch: Sequence[RankedPrompt], compute: Compute, *, max_tokens: int, learn: bool
) -> tuple[float, float]:
    """Return (loss, accuracy over pairs) of whole prompts; where `learn`, add the loss's gradient to the model's.

    Args:
        model: in training or not.
        batch: at least one prompt.
        compute: precision and device.
        max_tokens: computed at once.
        learn: whether the gradient is wanted.
    """
    batch = sorted(batch, key=lambda element: element.tree.num_tokens)  # like lengths together leave little padding
    groups = group_by_tokens([element.tree.num_tokens for element in batch], max_tokens=max_tokens)
    right_G, pairs_G = torch.zeros(len(groups)), torch.zeros(len(groups))

    def loss_of(number: int) -> Tensor:
        part = [batch[index] for index in groups[number]]
        preference_BKK = stack_preferences(part).to(model.head.weight.device)
        with autocast(compute):
            reward_BK = _score_part(model, part)
        pairs_G[number] = preference_BKK.sum()
        right_G[number] = pair_accuracy(reward_BK.detach(), preference_BKK) * pairs_G[number]
        return ranking_loss(reward_BK, preference_BKK, denominator=len(batch))

    if learn:
        parts = [LossPart(model, partial(loss_of, number)) for number in range(len(groups))]
        done = differentiate({"loss": parts})["loss"]
        add_gradient(model, done.gradient)
        loss = done.loss
    else:
        with torch.no_grad():
            loss = torch.stack(map_parts(loss_of, range(len(groups)))).sum().item()
    return loss, (right_G.sum() / pairs_G.sum()).item()


def _score_part(model: ScalarModel, part: Sequence[RankedPrompt]) -> Tensor:
    """Return reward_BK: every prompt and answer once through the model, read at its last token; 0 on padding."""
    device = model.head.weight.device
    packed = pack_trees([element.tree for element in part], context=model.config.max_positions, device=device)
    value_BT = model(
        packed.tokens_BT,
        positions_BT=packed.positions_BT,
        segments_BT=packed.segments_BT,
        branches_BT=packed.branches_BT,
    )
    return to_grid(value_BT.flatten().index_select(0, packed.last_N), part)


def validate(
    model: ScalarModel, held_out: Sequence[RankedPrompt], compute: Compute, max_tokens: int
) -> dict[str, float]:
    """Return `validation_loss` and `validation_accuracy` on prompts that were not trained on; nothing without any."""
    if not held_out:
        return {}
    loss, accuracy = rank_batch(model, held_out, compute, max_tokens=max_tokens, learn=False)
    return {"validation_loss": loss, "validation_accuracy": accuracy}


def _demonstration_rows(
    tokenizer: Tokenizer, demonstrations: Iterable[Conversation], max_prompt_tokens: int
) -> list[list[int]]:
    rows = []
    for conversation in demonstrations:
        *messages, answer = conversation.messages
        if answer["role"] != "assistant" or not messages:
            raise DataError(f"demonstration {conversation.id}: its last turn is not an answer of the assistant")
        rows.append(encode_answer(tokenizer, messages, answer["content"], max_prompt_tokens=max_prompt_tokens))
    return rows
