"""Who may look at whom: within a segment, and there as the layer's kind of mask says.

One rule serves packed training rows (segments 1, 2, ... are documents), padded batches on either side (real tokens are
segment 1, padding is segment 0) and cached decoding. Padding sees padding, never a real token, and no real token sees
padding: no row of attention is ever empty, so nothing is NaN, and padding cannot reach a real number.

A segment may be a tree: its branch 0 is seen by all that comes later in it, branches 1, 2, ... by themselves alone.

Shapes: B or R rows, T new positions (queries), S visible positions (keys; S = T without a cache, and the last T of S
are the new ones), M positions of an encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanbai.model.config import Mask


def additive_mask(
    num_queries: int,
    segments_BS: Tensor,
    dtype: torch.dtype,
    *,
    kind: Mask = "causal",
    band_width: int = 0,
    prefix_BT: Tensor | None = None,
    branches_BT: Tensor | None = None,
) -> Tensor:
    """Return 0 where a query may look and -inf elsewhere, to be added to attention scores.

    Args:
        num_queries: T; the queries are the last T of the S positions.
        segments_BS: the segment of each position, cached ones first.
        dtype: of the scores.
        kind: `ModelConfig.masks` says what each means.
        band_width: positions that a query of a banded layer sees, its own among them.
        prefix_BT: true on the new positions that are prefix; cached ones lie behind every query and need no saying.
        branches_BT: the branch of each new position within its segment; cached ones are branch 0, by default all are.

    Returns:
        mask_B1TS, the head axis open for broadcasting.
    """
    num_keys = segments_BS.shape[1]
    key_S = torch.arange(num_keys, device=segments_BS.device)
    query_T1 = key_S[num_keys - num_queries :, None]
    hidden_BTS = segments_BS[:, num_keys - num_queries :, None] != segments_BS[:, None, :]
    if kind != "full":
        future_TS = key_S > query_T1
        if kind == "prefix" and prefix_BT is not None:
            prefix_BS = torch.nn.functional.pad(prefix_BT.bool(), (num_keys - num_queries, 0))
            future_TS = future_TS & ~prefix_BS[:, None, :]
        hidden_BTS = hidden_BTS | future_TS
    if kind == "banded":
        hidden_BTS = hidden_BTS | (key_S <= query_T1 - band_width)
    if branches_BT is not None:
        key_B1S = torch.nn.functional.pad(branches_BT, (num_keys - num_queries, 0))[:, None, :]
        hidden_BTS = hidden_BTS | ((key_B1S != 0) & (key_B1S != branches_BT[:, :, None]))
    return _additive(hidden_BTS, dtype)


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


def positions_in_segments(segments_BS: Tensor) -> Tensor:
    """Return each position's distance from the first position of its segment (segments are contiguous runs).

    Two runs count as one segment only when they touch; padding counts too, harmlessly.
    """
    index_S = torch.arange(segments_BS.shape[1], device=segments_BS.device)
    starts_BS = torch.ones_like(segments_BS, dtype=torch.bool)
    starts_BS[:, 1:] = segments_BS[:, 1:] != segments_BS[:, :-1]
    return index_S - torch.where(starts_BS, index_S, 0).cummax(dim=1).values


def _additive(hidden_BTS: Tensor, dtype: torch.dtype) -> Tensor:
    mask_BTS = torch.zeros(hidden_BTS.shape, dtype=dtype, device=hidden_BTS.device)
    return mask_BTS.masked_fill_(hidden_BTS, float("-inf")).unsqueeze(1)
