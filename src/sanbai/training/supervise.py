"""Supervised fine-tuning: imitate demonstrations, the assistant's turns only.

Input: a model, demonstrations, optionally the pretraining documents to mix in. Output: a model folder. Metrics a step:
`loss` (nats a learned token), `pretraining_loss` where mixed in, `grad_norm` (before clipping), `rate`, with experts
also those of `routing.py` over the demonstrations; every `evaluate_steps` and at the end whatever `evaluate` returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

from pydantic import Field

from sanbai.data.conversations import Conversation
from sanbai.data.packing import EncodedItems, Items, PackedBatch, PackedBatches
from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.errors import DataError, ModelError
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed, torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.adapters.adapter import Adapted
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.adapters.shared import adapt
from sanbai.model.experts import set_expert_dropout
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import save_model
from sanbai.text.chat_template import encode_conversation
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.adapter_folder import NO_ADAPTER, save_merged, write_adapter
from sanbai.training.checkpoint import Checkpoints, Weights, cursor_in
from sanbai.training.gradients import LossPart, add_gradient, differentiate
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.pretrain import Evaluate, measure
from sanbai.training.routing import Routing
from sanbai.training.rows import row_parts
from sanbai.training.schedule import cosine_rate


class SuperviseRecipe(RecipeSection):
    """Section `[supervise]`. Defaults: InstructGPT's (Ouyang et al. 2022, appendix C.1)."""

    num_epochs: float = Field(default=16.0, gt=0.0)
    """How often the demonstrations are read. The validation loss is best after one, the reward keeps improving."""
    row_length: int = Field(default=2048, ge=2)
    """Tokens a row of packed conversations; longer conversations are left out and counted."""
    batch_rows: int = Field(default=32, ge=1)
    """Rows a step."""
    micro_batch_rows: int = Field(default=8, ge=1)
    """Rows computed at once; changes memory, not the mathematics."""
    learning_rate: float = Field(default=9.65e-6, gt=0.0, le=1.0)
    """Peak rate; a half cosine takes it down to 10 %."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of a rising rate; InstructGPT had none."""
    pretraining_share: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Weight m of the pretraining loss, and share of the rows that are pretraining's: the loss is
    (1 - m) · mean over learned tokens + m · mean over pretraining tokens. 0.1 is InstructGPT's start of PPO; 0 mixes
    nothing in."""
    evaluate_steps: int = Field(default=500, ge=1)
    """Steps between two evaluations."""
    checkpoint_steps: int = Field(default=200, ge=1)
    """Steps between two checkpoints."""
    expert_dropout: float = Field(default=0.4, ge=0.0, lt=1.0)
    """Share of experts' inner activations set to 0, Switch Transformer's against forgetting when there are few
    examples (Fedus et al. 2021, section 2.4); of no effect without experts."""
    optimizer: OptimizerRecipe = OptimizerRecipe()
    """Section `[supervise.optimizer]`."""


def encode_demonstrations(
    tokenizer: Tokenizer, conversations: Iterable[Conversation], *, row_length: int
) -> EncodedItems:
    """Encode conversations for `supervise`, those that do not fit a row left out: a cut one would answer no question.

    Raises:
        DataError: none is left.
    """
    encoded = [encode_conversation(tokenizer, conversation.messages) for conversation in conversations]
    fitting = [each for each in encoded if len(each.tokens) <= row_length and any(each.loss_mask)]
    if not fitting:
        raise DataError(
            f"none of {len(encoded)} demonstrations has an assistant's turn and at most {row_length} tokens; "
            "give others, or raise supervise.row_length"
        )
    return EncodedItems(fitting)


def num_supervise_steps(recipe: SuperviseRecipe, items: Items) -> int:
    """Return the steps in which the demonstrations are read `num_epochs` times."""
    return max(1, round(recipe.num_epochs * float(items.lengths.sum()) / (recipe.row_length * recipe.batch_rows)))


def supervise(
    stage: Stage,
    recipe: SuperviseRecipe,
    compute: Compute,
    *,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: Items,
    pretraining: Items,
    evaluate: Evaluate,
    adapter: AdapterRecipe = NO_ADAPTER,
) -> dict[str, Any]:
    """Fine-tune a model on demonstrations and write it into the stage's folder.

    With an adapter only that learns. It is written into `adapter/` in PEFT's layout; LoRA's products are then added to
    the weights and the model is written as ever, but a prompt cannot be, so that its folder holds no model.

    Args:
        stage: one step of its run is one optimizer step, `num_supervise_steps` in all.
        recipe: section `[supervise]`.
        compute: threads, precision, device; already applied to the process.
        model: the pretrained one; changed in place, unless an adapter learns.
        tokenizer: saved beside the model.
        items: `encode_demonstrations` of the conversations.
        pretraining: documents to mix in; not read where `pretraining_share` is 0.
        evaluate: called with the model in training; must not change it.
        adapter: section `[adapter]`.

    Returns:
        The last evaluation, the steps, the number of demonstrations, and with an adapter that of its parameters.

    Raises:
        Interrupted: asked to stop; the state is saved.
        ModelError: the adapter does not fit the model, or leaves too little room.
    """
    base, adapted = model.train(), None
    set_expert_dropout(base, recipe.expert_dropout)
    if adapter.method == "none":
        model.to(compute.device)
    else:
        model, adapted = _adapt(stage, recipe, base, adapter, compute)
    optimizer = Optimizer(model, recipe.optimizer)
    checkpoints = Checkpoints(stage.run, recipe.checkpoint_steps, model=Weights(model), optimizer=optimizer)
    step, state = checkpoints.resume()

    def batches_of(source: Items, name: str, batch_rows: int) -> PackedBatches:
        return PackedBatches(
            source,
            row_length=recipe.row_length,
            batch_rows=batch_rows,
            seed=derive_seed(stage.seed, "supervise", name),
            pad_id=tokenizer.reserved.pad,
            cursor=cursor_in(state, name),
        )

    def parts_of(batch: PackedBatch, weight: float, name: str, routing: Routing | None = None) -> list[LossPart]:
        return row_parts(
            model,
            batch,
            compute,
            micro_batch_rows=recipe.micro_batch_rows,
            coefficient=weight,
            seed=derive_seed(stage.seed, "supervise", name, "noise", step),
            routing=routing,
        )

    def watch() -> dict[str, float]:
        # The frozen products of a model with an adapter are in autocast's precision and no other.
        with autocast(compute) if adapted else nullcontext():
            return measure(model, evaluate)

    share = recipe.pretraining_share
    demonstrations = batches_of(items, "demonstrations", recipe.batch_rows)
    mixed_rows = max(1, round(share * recipe.batch_rows)) if share else 0
    documents = batches_of(pretraining, "documents", mixed_rows) if share else None

    weights = {"loss": 1 - share, "pretraining_loss": share}
    num_steps = num_supervise_steps(recipe, items)
    while step < num_steps:
        routing = Routing()
        parts = {"loss": parts_of(next(demonstrations), 1 - share, "demonstrations", routing)}
        cursors = {"demonstrations": demonstrations.cursor.to_state()}
        if documents is not None:
            parts["pretraining_loss"] = parts_of(next(documents), share, "documents")
            cursors["documents"] = documents.cursor.to_state()
        done = differentiate(parts)
        for weighted in done.values():
            add_gradient(model, weighted.gradient)
        loss = {name: done[name].loss / weight for name, weight in weights.items() if name in done}
        rate = cosine_rate(step, peak=recipe.learning_rate, num_steps=num_steps, warmup_steps=recipe.warmup_steps)
        grad_norm = optimizer.step(rate)
        step += 1
        stage.run.record(step, **loss, grad_norm=grad_norm, rate=rate, **routing.metrics())
        if step % recipe.evaluate_steps == 0 and step < num_steps:
            stage.run.record(step, **watch())
        checkpoints.after_step(step, cursors)

    metrics: dict[str, Any] = watch()
    stage.run.record(step, **metrics)
    metrics |= {"steps": num_steps, "demonstrations": len(items.lengths)}
    if adapted is None:
        save_model(model, stage.folder, tokenizer)
        return metrics
    metrics["adapter_parameters"] = sum(parameter.numel() for parameter in adapted.parameters().values())
    if adapter.method == "lora":
        save_merged(adapted, base, stage.folder, tokenizer, base=stage.parents.get("base"))
    else:
        write_adapter(adapted, stage.folder, base=stage.parents.get("base"))
        tokenizer.save(stage.folder)
    return metrics


def _adapt(
    stage: Stage, recipe: SuperviseRecipe, base: LanguageModel, adapter: AdapterRecipe, compute: Compute
) -> tuple[LanguageModel, Adapted]:
    """Return a model of the base's weights with a fresh adapter, placed; the base itself has none.

    Raises:
        ModelError: it does not fit the base, or leaves too little room.
    """
    adapted = adapt(base, adapter, torch_generator(stage.seed, "supervise", "adapter"), compute)
    model = adapted.model
    assert isinstance(model, LanguageModel), "an adapter leaves its kind to a model"
    if recipe.row_length > (room := model.config.max_positions):
        raise ModelError(
            f"supervise.row_length {recipe.row_length} exceeds the {room} positions that the adapter leaves for a "
            "text; lower it, or adapter.num_virtual_tokens"
        )
    return model, adapted
