"""Rows to read and rows to write through a model with an encoder and a decoder.

Shapes: B rows, M positions read, T positions written, N written tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sanbai.data.span_corruption import SourceTargetBatch
from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.seeds import derive_seed
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.experts import RouterReport
from sanbai.objectives.language import chunked_next_token_loss
from sanbai.training.gradients import LossPart


def source_target_loss(
    model: EncoderDecoder, batch: SourceTargetBatch, *, denominator: float, generator: torch.Generator | None = None
) -> Tensor:
    """Σ of the written tokens' negative log-probabilities in nats / denominator.

    Where experts are, their routers' losses are added, weighed by the share of the denominator that is written here.

    Args:
        model: carries the gradient.
        batch: rows.
        denominator: the number of tokens that the mean is over.
        generator: of the experts' jitter and dropout.
    """
    device = model.decoder.head_weight.device
    source_BM, source_segments_BM, decoder_BT, targets_BT, segments_BT = (
        torch.from_numpy(array).to(device)
        for array in (
            batch.source_BM,
            batch.source_segments_BM,
            batch.decoder_BT,
            batch.targets_BT,
            batch.target_segments_BT,
        )
    )
    reports: list[RouterReport] = []
    memory_BMD = model.encode(source_BM, source_segments_BM, reports=reports, generator=generator)
    hidden_BTD = model.decoder.trunk(
        decoder_BT,
        segments_BT=segments_BT,
        memory_BMD=memory_BMD,
        memory_segments_BM=source_segments_BM,
        reports=reports,
        generator=generator,
    )
    written_N = segments_BT.flatten().nonzero().squeeze(1)
    target_N = targets_BT.flatten()[written_N]
    weight_N = torch.full_like(target_N, 1.0 / denominator, dtype=torch.float32)
    hidden_ND = hidden_BTD.flatten(0, 1).index_select(0, written_N)
    loss = chunked_next_token_loss(hidden_ND, model.decoder.head_weight, target_N, weight_N)
    for report in reports:
        loss = loss + report.loss * (len(target_N) / denominator)
    return loss


def source_target_parts(
    model: EncoderDecoder, batch: SourceTargetBatch, compute: Compute, *, micro_batch_rows: int, noise_seed: int
) -> list[LossPart]:
    """Return the parts of the mean loss of the written tokens, nats a token.

    Args:
        model: carries the gradient.
        batch: rows with at least one written token.
        compute: precision and device.
        micro_batch_rows: rows of a part.
        noise_seed: of this batch's jitter and dropout; of no effect without experts.
    """
    device = model.decoder.head_weight.device
    denominator = int((batch.target_segments_BT != 0).sum())

    def part_of(number: int, rows: SourceTargetBatch) -> LossPart:
        def loss() -> Tensor:
            with autocast(compute):
                generator = torch.Generator(device).manual_seed(derive_seed(noise_seed, "part", number))
                return source_target_loss(model, rows, denominator=denominator, generator=generator)

        return LossPart(model, loss)

    return [part_of(number, rows) for number, rows in enumerate(split_source_target_rows(batch, micro_batch_rows))]


@torch.no_grad()
def measure_source_target(
    model: EncoderDecoder, batch: SourceTargetBatch, compute: Compute, *, micro_batch_rows: int
) -> dict[str, float]:
    """Return `written_loss`, nats a written token that the model does not learn from, routers' losses included."""
    denominator = int((batch.target_segments_BT != 0).sum())
    with autocast(compute):
        losses = [
            source_target_loss(model, rows, denominator=denominator).item()
            for rows in split_source_target_rows(batch, micro_batch_rows)
        ]
    return {"written_loss": sum(losses)}


def split_source_target_rows(batch: SourceTargetBatch, num_rows: int) -> Iterator[SourceTargetBatch]:
    """Yield the batch in parts of at most `num_rows` rows; those without anything to write are left out."""
    for start in range(0, len(batch.source_BM), num_rows):
        rows = batch.rows(slice(start, start + num_rows))
        if rows.target_segments_BT.any():
            yield rows
