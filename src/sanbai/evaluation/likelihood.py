"""Log-probabilities of given tokens under a model, many rows of unequal length at once.

Rows are sorted by length and padded on the right: under a causal mask what stands on the right cannot change what
stands on the left, so that a row's numbers are its own, and no mask is needed (which keeps attention's fast kernel).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sanbai.model.heads import LanguageModel

BATCH_TOKENS = 8_192


@torch.no_grad()
def token_logprobs(
    model: LanguageModel, rows: Sequence[Sequence[int]], *, batch_tokens: int = BATCH_TOKENS
) -> list[NDArray[np.float64]]:
    """Return log p(token | all before it in its row) for every token of every row but the first.

    Args:
        model: not changed; set to no other mode than it is in.
        rows: token ids; each row at most as long as the model has positions.
        batch_tokens: tokens of a batch with its padding; its logits take 4 bytes · batch_tokens · vocabulary.

    Returns:
        For each row, in the order given, its length - 1 log-probabilities in nats (none for an empty row).
    """
    device = next(model.parameters()).device
    logprobs: list[NDArray[np.float64]] = [np.empty(0)] * len(rows)
    for batch in _batches_by_length([len(row) for row in rows], batch_tokens):
        tokens_BT = torch.zeros(len(batch), max(len(rows[i]) for i in batch), dtype=torch.long)
        for place, i in enumerate(batch):
            tokens_BT[place, : len(rows[i])] = torch.as_tensor(rows[i], dtype=torch.long)
        tokens_BT = tokens_BT.to(device)
        logits_BTV = model(tokens_BT[:, :-1]).float()
        chosen_BT = logits_BTV.gather(-1, tokens_BT[:, 1:, None]).squeeze(-1) - logits_BTV.logsumexp(-1)
        values_BT = chosen_BT.double().cpu().numpy()
        for place, i in enumerate(batch):
            logprobs[i] = values_BT[place, : len(rows[i]) - 1].copy()
    return logprobs


def _batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield indices of rows, longest first, as many as fit into the budget with padding; always at least one."""
    order = sorted((i for i, length in enumerate(lengths) if length > 1), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size
