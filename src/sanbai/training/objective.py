"""What an objective of pretraining needs: a model of its kind, batches, and the loss of a batch.

Shapes: B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Literal, Protocol

import torch

from sanbai.data.altered import AlteredBatches
from sanbai.data.masking import MASK_SHARE, MaskedBatch, Masking, mask_rows, name_finder
from sanbai.data.packing import Cursor, Items, PackedBatch, PackedBatches
from sanbai.data.sentence_pairs import SentencePairs
from sanbai.data.span_corruption import (
    CutText,
    SourceTargetBatch,
    cut_at_random,
    prefix_rows,
    source_target_rows,
    span_cutter,
)
from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import derive_seed
from sanbai.model.config import ModelConfig
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel
from sanbai.model.reading_heads import MaskedModel, MaskedPairModel
from sanbai.text.reserved import READING_MARKERS, sentinel_markers
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.gradients import LossPart
from sanbai.training.masked_rows import masked_parts, measure_masked
from sanbai.training.routing import Routing
from sanbai.training.rows import row_parts
from sanbai.training.source_target_rows import measure_source_target, source_target_parts

ObjectiveName = Literal["causal", "prefix", "masked", "span_corruption", "entity_masked"]
MASKED: frozenset[ObjectiveName] = frozenset({"masked", "entity_masked"})

Pretrained = LanguageModel | MaskedModel | MaskedPairModel | EncoderDecoder
Batch = PackedBatch | MaskedBatch | SourceTargetBatch

#: Rows of held-out text that a model in training is measured on.
NUM_WATCHED_ROWS = 64


class Batches(Protocol):
    """Batches without end, and where they stand."""

    def __next__(self) -> Any:
        """Return the next batch, one of `Batch`."""

    @property
    def cursor(self) -> Cursor:
        """Where the next batch begins."""

    @property
    def epochs(self) -> float:
        """How often the items were read."""


def misfit(objective: ObjectiveName, config: ModelConfig) -> str:
    """Return why a model of this shape cannot learn the objective, or nothing where it can."""
    masks, encoder = set(config.masks), bool(config.encoder_layers)
    if objective in MASKED and (masks != {"full"} or encoder):
        wanted = 'model.masks = ["full"] and no encoder: tokens are learned from both sides'
    elif objective == "span_corruption" and not encoder:
        wanted = "model.encoder_layers of 1 or more: one text is read, another written"
    elif objective == "causal" and (encoder or not masks <= {"causal", "banded", "prefix"}):
        wanted = "masks that look back and no encoder: the next token must not be seen"
    elif objective == "prefix" and not encoder and "prefix" not in masks:
        wanted = 'model.masks = ["prefix"], or an encoder that reads the prefix'
    else:
        return ""
    return f'pretrain.objective = "{objective}" wants {wanted}'


def objective_markers(objective: ObjectiveName) -> tuple[str, ...]:
    """Return the reserved tokens that a tokenizer needs for the objective, beside the usual ones."""
    if objective in MASKED:
        return tuple(READING_MARKERS.values())
    return sentinel_markers() if objective == "span_corruption" else ()


def new_model(
    objective: ObjectiveName,
    config: ModelConfig,
    generator: torch.Generator | None = None,
    *,
    next_sentence: bool = True,
) -> Pretrained:
    """Return a model that learns by the objective; without a generator its weights are left for a loader to fill."""
    if objective in MASKED:
        return MaskedPairModel(config, generator) if next_sentence else MaskedModel(config, generator)
    return EncoderDecoder(config, generator) if config.encoder_layers else LanguageModel(config, generator)


def open_batches(
    objective: ObjectiveName,
    items: Items,
    tokenizer: Tokenizer,
    *,
    row_length: int,
    batch_rows: int,
    seed: int,
    cursor: Cursor | None = None,
    first_row: int = 0,
    to_encoder: bool = False,
    next_sentence: bool = True,
    mask_share: float = MASK_SHARE,
    names: Collection[str] = (),
) -> Batches:
    """Return the objective's batches from a place on; what a row hides follows from the seed and the row's number.

    Args:
        objective: what is learned.
        items: documents, a mark at both ends.
        tokenizer: of the items.
        row_length: tokens a row.
        batch_rows: rows a batch.
        seed: of order and hiding.
        cursor: where packed rows stand.
        first_row: rows read before.
        to_encoder: of `prefix`, whether an encoder reads it.
        next_sentence: of masked objectives, whether rows are pairs of texts.
        mask_share: of masked objectives, the tokens that are learned.
        names: what `entity_masked` hides whole.

    Raises:
        UsageError: the tokenizer was not trained for the objective.
        DataError: no names, or nothing to pair.
    """
    corruption_seed = derive_seed(seed, "corruption")
    masking = None
    if objective in MASKED:
        find_names = name_finder(tokenizer, names) if objective == "entity_masked" else None
        masking = Masking(tokenizer, find_names, share=mask_share)
        if next_sentence:
            return SentencePairs(
                items,
                masking,
                tokenizer,
                row_length=row_length,
                batch_rows=batch_rows,
                seed=corruption_seed,
                first_row=first_row,
            )
    packed = PackedBatches(
        items,
        row_length=row_length,
        batch_rows=batch_rows,
        seed=seed,
        pad_id=tokenizer.reserved.pad,
        cursor=cursor,
    )

    def altered(alter: Callable[..., Batch]) -> AlteredBatches[Batch]:
        return AlteredBatches(
            packed,
            lambda batch, generators: alter(batch, generators=generators),
            seed=corruption_seed,
            first_row=first_row,
        )

    def cut_by(cut: CutText) -> AlteredBatches[Batch]:
        return altered(partial(source_target_rows, cut=cut, tokenizer=tokenizer))

    if masking is not None:
        return altered(partial(mask_rows, masking=masking, end_of_text=tokenizer.reserved.end_of_text))
    if objective == "span_corruption":
        return cut_by(span_cutter(tokenizer, row_length=row_length))
    if objective == "prefix":
        return cut_by(cut_at_random) if to_encoder else altered(prefix_rows)
    return packed


def loss_parts(
    model: Pretrained,
    batch: Batch,
    compute: Compute,
    *,
    micro_batch_rows: int,
    noise_seed: int,
    routing: Routing | None = None,
) -> list[LossPart]:
    """Return the parts of a batch's mean loss, nats a learned token.

    Args:
        model: of the kind that `new_model` gave for the batch's objective.
        batch: rows with something to be learned.
        compute: precision and device.
        micro_batch_rows: rows of a part.
        noise_seed: of the experts' jitter and dropout in this batch.
        routing: gets what a decoder's routers did with each part.
    """
    if isinstance(batch, MaskedBatch):
        assert isinstance(model, MaskedModel | MaskedPairModel)
        return masked_parts(model, batch, compute, micro_batch_rows=micro_batch_rows)
    if isinstance(batch, SourceTargetBatch):
        assert isinstance(model, EncoderDecoder)
        return source_target_parts(model, batch, compute, micro_batch_rows=micro_batch_rows, noise_seed=noise_seed)
    assert isinstance(model, LanguageModel)
    return row_parts(model, batch, compute, micro_batch_rows=micro_batch_rows, seed=noise_seed, routing=routing)


def measure(model: Pretrained, batch: Batch, compute: Compute, *, micro_batch_rows: int) -> dict[str, float]:
    """Return losses (nats a token) and accuracies of a batch that is not learned from; the model reads as at use.

    Of a prefix or causal decoder `heldout_loss`; of an encoder and decoder `written_loss`; of a masked model
    `masked_loss`, `masked_accuracy`, and of pairs `next_sentence_loss`, `next_sentence_accuracy`.
    """
    was_training = model.training
    model.eval()
    try:
        if isinstance(batch, MaskedBatch):
            assert isinstance(model, MaskedModel | MaskedPairModel)
            return measure_masked(model, batch, compute, micro_batch_rows=micro_batch_rows)
        if isinstance(batch, SourceTargetBatch):
            assert isinstance(model, EncoderDecoder)
            return measure_source_target(model, batch, compute, micro_batch_rows=micro_batch_rows)
        assert isinstance(model, LanguageModel)
        with torch.no_grad():
            parts = row_parts(model, batch, compute, micro_batch_rows=micro_batch_rows)
            return {"heldout_loss": sum(part.loss().item() for part in parts)}
    finally:
        model.train(was_training)
