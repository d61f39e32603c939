"""Who may look at whom: a position sees earlier positions of its own segment, and itself.

One rule serves packed training rows (segments 1, 2, ... are documents), padded batches on either side (real tokens are
segment 1, padding is segment 0) and cached decoding. Padding sees padding, never a real token, and no real token sees
padding: no row of attention is ever empty, so nothing is NaN, and padding cannot reach a real number.

A segment may be a tree: its branch 0 is seen by all that comes later in it, branches 1, 2, ... by themselves alone.

Shapes: B rows, T new positions (queries), S visible positions (keys; S = T without a cache, and the last T of S are the
new ones).
"""

from __future__ import annotations

import torch
from torch import Tensor


def additive_mask(
    num_queries: int, segments_BS: Tensor, dtype: torch.dtype, *, branches_BS: Tensor | None = None
) -> Tensor:
    """Return 0 where a query may look and -inf elsewhere, to be added to attention scores.

    Args:
        num_queries: T; the queries are the last T of the S positions.
        segments_BS: the segment of each position, cached ones first.
        dtype: of the scores.
        branches_BS: the branch of each position within its segment; by default 0, no branches.

    Returns:
        mask_B1TS, the head axis open for broadcasting.
    """
    num_keys = segments_BS.shape[1]
    key_S = torch.arange(num_keys, device=segments_BS.device)
    future_TS = key_S > key_S[num_keys - num_queries :, None]
    other_BTS = segments_BS[:, num_keys - num_queries :, None] != segments_BS[:, None, :]
    hidden_BTS = other_BTS | future_TS
    if branches_BS is not None:
        query_BT1 = branches_BS[:, num_keys - num_queries :, None]
        key_B1S = branches_BS[:, None, :]
        hidden_BTS |= (key_B1S != 0) & (key_B1S != query_BT1)
    mask_BTS = torch.zeros(hidden_BTS.shape, dtype=dtype, device=segments_BS.device)
    return mask_BTS.masked_fill_(hidden_BTS, float("-inf")).unsqueeze(1)


def positions_in_segments(segments_BS: Tensor) -> Tensor:
    """Return each position's distance from the first position of its segment (segments are contiguous runs).

    Two runs count as one segment only when they touch; padding counts too, harmlessly.
    """
    index_S = torch.arange(segments_BS.shape[1], device=segments_BS.device)
    starts_BS = torch.ones_like(segments_BS, dtype=torch.bool)
    starts_BS[:, 1:] = segments_BS[:, 1:] != segments_BS[:, :-1]
    return index_S - torch.where(starts_BS, index_S, 0).cummax(dim=1).values
