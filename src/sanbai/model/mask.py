"""Who may look at whom: within a segment, and there as the layer's kind of mask says.

One rule serves packed training rows (segments 1, 2, ... are documents) and padded batches on either side (real tokens
are segment 1, padding is segment 0). Padding sees padding, never a real token, and no real token sees padding: no row
of attention is ever empty, so nothing is NaN, and padding cannot reach a real number.

A segment may be a tree: its branch 0 is seen by all that comes later in it, branches 1, 2, ... by themselves alone.

Shapes: B or R rows, T positions (queries), S positions that are looked at (keys; S = T within a text), M positions of
an encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanbai.model.config import Mask


def additive_mask(
    segments_BT: Tensor,
    dtype: torch.dtype,
    *,
    kind: Mask = "causal",
    band_width: int = 0,
    prefix_BT: Tensor | None = None,
    branches_BT: Tensor | None = None,
) -> Tensor:
    """Return 0 where a query may look and -inf elsewhere, to be added to attention scores.

    Args:
        segments_BT: the segment of each position.
        dtype: of the scores.
        kind: `ModelConfig.masks` says what each means.
        band_width: positions that a query of a banded layer sees, its own among them.
        prefix_BT: true on the positions that are prefix.
        branches_BT: the branch of each position within its segment; by default all are branch 0.

    Returns:
        mask_B1TT, the head axis open for broadcasting.
    """
    key_T = torch.arange(segments_BT.shape[1], device=segments_BT.device)
    query_T1 = key_T.unsqueeze(-1)
    hidden_BTT = segments_BT[:, :, None] != segments_BT[:, None, :]
    if kind != "full":
        future_TT = key_T > query_T1
        if kind == "prefix" and prefix_BT is not None:
            future_TT = future_TT & ~prefix_BT.bool()[:, None, :]
        hidden_BTT = hidden_BTT | future_TT
    if kind == "banded":
        hidden_BTT = hidden_BTT | (key_T <= query_T1 - band_width)
    if branches_BT is not None:
        key_B1T = branches_BT[:, None, :]
        hidden_BTT = hidden_BTT | ((key_B1T != 0) & (key_B1T != branches_BT[:, :, None]))
    return _additive(hidden_BTT, dtype)


def memory_mask(segments_BT: Tensor, memory_segments_BM: Tensor, dtype: torch.dtype) -> Tensor:
    """Return mask_B1TM of queries that look at an encoder's result: at all of their own segment.

    A query with nothing to see (padding beside a text that has none) sees everything; nobody reads its result.
    """
    hidden_BTM = segments_BT[:, :, None] != memory_segments_BM[:, None, :]
    return _additive(hidden_BTM & ~hidden_BTM.all(dim=-1, keepdim=True), dtype)


def prefix_mask(num_virtual: int, positions_BT: Tensor, dtype: torch.dtype, *, band_width: int | None = None) -> Tensor:
    """Return mask_B1TP of queries that look at P virtual positions before every segment.

    Args:
        num_virtual: P, at positions 0 to P - 1.
        positions_BT: of the queries, counted from there.
        dtype: of the scores.
        band_width: of a banded layer.
    """
    virtual_P = torch.arange(num_virtual, device=positions_BT.device)
    distance_BTP = positions_BT.unsqueeze(-1) - virtual_P
    hidden_BTP = torch.zeros_like(distance_BTP, dtype=torch.bool)
    if band_width is not None:
        hidden_BTP = distance_BTP >= band_width
    return _additive(hidden_BTP, dtype)


def position_mask(position_RT: Tensor, num_keys: int, dtype: torch.dtype, *, band_width: int | None = None) -> Tensor:
    """Return mask_R1TS of queries that look back at S keys, each key at the position of its index.

    Args:
        position_RT: of the queries.
        num_keys: S.
        dtype: of the scores.
        band_width: of a banded layer.
    """
    key_S = torch.arange(num_keys, device=position_RT.device)
    hidden_RTS = key_S > position_RT.unsqueeze(-1)
    if band_width is not None:
        hidden_RTS = hidden_RTS | (key_S <= position_RT.unsqueeze(-1) - band_width)
    return _additive(hidden_RTS, dtype)


def positions_in_segments(segments_BT: Tensor) -> Tensor:
    """Return each position's distance from the first position of its segment (segments are contiguous runs).

    Two runs count as one segment only when they touch; padding counts too, harmlessly.
    """
    index_T = torch.arange(segments_BT.shape[1], device=segments_BT.device)
    starts_BT = torch.ones_like(segments_BT, dtype=torch.bool)
    starts_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    return index_T - torch.where(starts_BT, index_T, 0).cummax(dim=1).values


def _additive(hidden_BTS: Tensor, dtype: torch.dtype) -> Tensor:
    mask_BTS = torch.zeros(hidden_BTS.shape, dtype=dtype, device=hidden_BTS.device)
    return mask_BTS.masked_fill_(hidden_BTS, float("-inf")).unsqueeze(1)
