"""What a model in training is measured on, again and again."""

from __future__ import annotations

from collections.abc import Callable

from sanbai.data.shards import ShardReader
from sanbai.data.vocabulary import load_tokenizer
from sanbai.evaluation.language import bits_per_byte, heldout_documents
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.seeds import derive_seed
from sanbai.model.heads import LanguageModel
from sanbai.rounds.material import Material
from sanbai.rounds.recipe import Recipe
from sanbai.training.objective import NUM_WATCHED_ROWS, Pretrained, measure, open_batches

#: Held-out documents that a stage in training is measured on; the final evaluation reads more.
NUM_WATCHED_DOCUMENTS = 64


def watch_language(
    recipe: Recipe, tokenizer: Artifact, shards: Artifact
) -> Callable[[LanguageModel], dict[str, float]]:
    """Return a function that measures held-out bits per byte of a model in training."""
    begin_id = load_tokenizer(tokenizer).reserved.end_of_text
    documents = heldout_documents(shards, NUM_WATCHED_DOCUMENTS)

    def evaluate(model: LanguageModel) -> dict[str, float]:
        context = min(model.config.max_positions, recipe.pretrain.row_length)
        estimate = bits_per_byte(model, documents, begin_id=begin_id, context=context, seed=0, draws=200)
        return {"bits_per_byte": estimate.mean}

    return evaluate


def watch_objective(
    recipe: Recipe, material: Material, tokenizer: Artifact, shards: Artifact
) -> Callable[[Pretrained], dict[str, float]]:
    """Return a function that measures the recipe's objective on the same held-out rows again and again."""
    pretrain = recipe.pretrain
    batch = next(
        open_batches(
            pretrain.objective,
            ShardReader(shards, "validation"),
            load_tokenizer(tokenizer),
            row_length=pretrain.row_length,
            batch_rows=NUM_WATCHED_ROWS,
            seed=derive_seed(recipe.seed, "pretrain", "held out"),
            to_encoder=bool(recipe.model.encoder_layers),
            next_sentence=pretrain.next_sentence,
            mask_share=pretrain.mask_share,
            names=material.names() if pretrain.objective == "entity_masked" else (),
        )
    )

    def evaluate(model: Pretrained) -> dict[str, float]:
        return measure(model, batch, recipe.compute, micro_batch_rows=pretrain.micro_batch_rows)

    return evaluate
