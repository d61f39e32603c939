"""Packed rows through a language model: targets are the next tokens, logits exist only where one is learned.

Shapes: B rows, T positions, N positions to be learned, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sanbai.data.packing import PackedBatch
from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.seeds import derive_seed
from sanbai.model.adapters.low_rank import drawing_from
from sanbai.model.experts import RouterReport
from sanbai.model.heads import LanguageModel
from sanbai.objectives.language import chunked_next_token_loss
from sanbai.training.gradients import LossPart
from sanbai.training.routing import Routing


def learned_places(
    model: LanguageModel,
    batch: PackedBatch,
    *,
    seed: int = 0,
    reports: list[RouterReport] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return hidden_ND before each token to be learned, and target_N, those tokens.

    Args:
        model: carries the gradient.
        batch: rows; at least one token to be learned.
        seed: of the noise of experts and adapters in training; a model without them draws nothing.
        reports: gets what each layer's router did appended.
    """
    device = model.head_weight.device
    tokens_BT, segments_BT, positions_BT, learned_BT = (
        torch.from_numpy(array).to(device)
        for array in (batch.tokens_BT, batch.segments_BT, batch.positions_BT, batch.loss_mask_BT)
    )
    prefix_BT = None if batch.prefix_BT is None else torch.from_numpy(batch.prefix_BT).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    with drawing_from(generator):
        hidden_BTD = model.trunk(
            tokens_BT,
            positions_BT=positions_BT,
            segments_BT=segments_BT,
            prefix_BT=prefix_BT,
            reports=reports,
            generator=generator,
        )
    before_N = learned_BT[:, 1:].flatten().nonzero().squeeze(1)  # places whose next token is learned
    hidden_ND = hidden_BTD[:, :-1].flatten(0, 1).index_select(0, before_N)
    return hidden_ND, tokens_BT[:, 1:].flatten()[before_N]


def rows_loss(
    model: LanguageModel,
    batch: PackedBatch,
    *,
    denominator: float,
    seed: int = 0,
    reports: list[RouterReport] | None = None,
) -> Tensor:
    """Σ of the learned tokens' negative log-probabilities in nats / denominator.

    Where experts are, their routers' losses are added, weighed by the share of the denominator that is learned here, so
    that a batch's parts add up to one mean of them.

    Args:
        model: carries the gradient.
        batch: rows; at least one token to be learned.
        denominator: the number of tokens that the mean is over.
        seed: of the noise of experts and adapters in training; a model without them draws nothing.
        reports: gets what each layer's router did appended.
    """
    reports = [] if reports is None else reports
    hidden_ND, target_N = learned_places(model, batch, seed=seed, reports=reports)
    weight_N = torch.full_like(target_N, 1.0 / denominator, dtype=torch.float32)
    loss = chunked_next_token_loss(hidden_ND, model.head_weight, target_N, weight_N)
    for report in reports:
        loss = loss + report.loss * (len(target_N) / denominator)
    return loss


def row_parts(
    model: LanguageModel,
    batch: PackedBatch,
    compute: Compute,
    *,
    micro_batch_rows: int,
    coefficient: float = 1.0,
    seed: int = 0,
    routing: Routing | None = None,
) -> list[LossPart]:
    """Return the parts of coefficient · (mean loss of the batch's learned tokens, nats a token).

    The batch is computed in parts, each divided by the whole batch's count: the sum of the parts' gradients is the
    batch's, however it is cut (a mean of parts' means would weigh tokens by who stands beside them).

    Args:
        model: carries the gradient.
        batch: rows with at least one token to be learned.
        compute: precision and device.
        micro_batch_rows: rows of a part.
        coefficient: weight of this loss beside others of the same step.
        seed: of the step's noise; each part has a stream of its own.
        routing: gets what the routers did with each part.
    """
    denominator = int(batch.loss_mask_BT.sum()) / coefficient

    def part_of(index: int, rows: PackedBatch) -> LossPart:
        def loss() -> Tensor:
            reports: list[RouterReport] = []
            with autocast(compute):
                loss = rows_loss(
                    model, rows, denominator=denominator, seed=derive_seed(seed, "part", index), reports=reports
                )
            if routing is not None:
                routing.add(index, int((rows.segments_BT != 0).sum()), reports)
            return loss

        return LossPart(model, loss)

    return [part_of(index, rows) for index, rows in enumerate(split_rows(batch, micro_batch_rows))]


def split_rows(batch: PackedBatch, num_rows: int) -> Iterator[PackedBatch]:
    """Yield the batch in parts of at most `num_rows` rows; those without anything to learn are left out."""
    for start in range(0, len(batch.tokens_BT), num_rows):
        part = slice(start, start + num_rows)
        if batch.loss_mask_BT[part].any():
            yield PackedBatch(
                batch.tokens_BT[part],
                batch.segments_BT[part],
                batch.positions_BT[part],
                batch.loss_mask_BT[part],
                None if batch.prefix_BT is None else batch.prefix_BT[part],
            )
