"""Rows with hidden tokens through a model that reads from both sides: logits exist only where something was chosen.

Shapes: B rows, T positions, N chosen positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sanbai.data.masking import MaskedBatch
from sanbai.foundation.device import Compute, autocast
from sanbai.model.reading_heads import MaskedModel, MaskedPairModel
from sanbai.objectives.language import categorical_loss
from sanbai.training.gradients import LossPart

Reader = MaskedModel | MaskedPairModel


def masked_logits(model: Reader, batch: MaskedBatch) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return logits_NV of the chosen tokens, their targets_N, and logits_B2 of the pairs where rows are pairs."""
    device = model.trunk.token_embedding.weight.device
    tokens_BT, segments_BT, positions_BT, types_BT, targets_BT, chosen_BT = (
        torch.from_numpy(array).to(device)
        for array in (
            batch.tokens_BT,
            batch.segments_BT,
            batch.positions_BT,
            batch.types_BT,
            batch.targets_BT,
            batch.loss_mask_BT,
        )
    )
    hidden_BTD = model.trunk(tokens_BT, segments_BT=segments_BT, positions_BT=positions_BT, types_BT=types_BT)
    chosen_N = chosen_BT.flatten().nonzero().squeeze(1)
    logits_NV = model.logits(hidden_BTD.flatten(0, 1).index_select(0, chosen_N))
    pairs_B2 = None
    if batch.unrelated_B is not None:
        assert isinstance(model, MaskedPairModel)
        pairs_B2 = model.pair_logits(hidden_BTD, segments_BT)
    return logits_NV, targets_BT.flatten()[chosen_N], pairs_B2


def masked_parts(model: Reader, batch: MaskedBatch, compute: Compute, *, micro_batch_rows: int) -> list[LossPart]:
    """Return the parts of BERT's loss: the mean over chosen tokens and, of pairs, the mean over rows added to it.

    Both in nats; divided by the whole batch's numbers, however it is cut.

    Args:
        model: carries the gradient; of pairs, a `MaskedPairModel`.
        batch: rows with at least one chosen token.
        compute: precision and device.
        micro_batch_rows: rows of a part.
    """
    num_chosen, num_rows = int(batch.loss_mask_BT.sum()), len(batch.tokens_BT)

    def part_of(rows: MaskedBatch) -> LossPart:
        def loss() -> Tensor:
            with autocast(compute):
                logits_NV, target_N, pairs_B2 = masked_logits(model, rows)
                loss = categorical_loss(logits_NV, target_N, denominator=num_chosen)
                if pairs_B2 is not None and rows.unrelated_B is not None:
                    unrelated_B = torch.from_numpy(rows.unrelated_B).to(pairs_B2.device)
                    loss = loss + categorical_loss(pairs_B2, unrelated_B, denominator=num_rows)
                return loss

        return LossPart(model, loss)

    return [part_of(rows) for rows in split_masked_rows(batch, micro_batch_rows)]


@torch.no_grad()
def measure_masked(model: Reader, batch: MaskedBatch, compute: Compute, *, micro_batch_rows: int) -> dict[str, float]:
    """Return what the model makes of rows that it does not learn from.

    Returns:
        `masked_loss`, nats a chosen token, and `masked_accuracy`; of pairs `next_sentence_loss` and
        `next_sentence_accuracy`.
    """
    totals: dict[str, float] = {}
    numbers = {"masked": int(batch.loss_mask_BT.sum()), "next_sentence": len(batch.tokens_BT)}
    with autocast(compute):
        for rows in split_masked_rows(batch, micro_batch_rows):
            logits_NV, target_N, pairs_B2 = masked_logits(model, rows)
            measured = {"masked": (logits_NV, target_N)}
            if pairs_B2 is not None and rows.unrelated_B is not None:
                measured["next_sentence"] = (pairs_B2, torch.from_numpy(rows.unrelated_B).to(pairs_B2.device))
            for name, (logits_NC, wanted_N) in measured.items():
                loss = categorical_loss(logits_NC, wanted_N, denominator=numbers[name]).item()
                right = (logits_NC.argmax(dim=-1) == wanted_N).sum().item() / numbers[name]
                totals[f"{name}_loss"] = totals.get(f"{name}_loss", 0.0) + loss
                totals[f"{name}_accuracy"] = totals.get(f"{name}_accuracy", 0.0) + right
    return totals


def split_masked_rows(batch: MaskedBatch, num_rows: int) -> Iterator[MaskedBatch]:
    """Yield the batch in parts of at most `num_rows` rows."""
    for start in range(0, len(batch.tokens_BT), num_rows):
        yield batch.rows(slice(start, start + num_rows))
