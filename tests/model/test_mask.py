"""Masks against the rule, spelt out for every pair of positions."""

from __future__ import annotations

import math

import pytest
import torch

from sanbai.model.config import Mask
from sanbai.model.mask import additive_mask, memory_mask

SEGMENTS = [[0, 0, 1, 1, 1, 2, 2, 2, 2, 0]]
PREFIX = [[0, 0, 1, 1, 0, 1, 1, 1, 0, 0]]


def may_look(kind: Mask, query: int, key: int) -> bool:
    if SEGMENTS[0][query] != SEGMENTS[0][key]:
        return False
    if kind == "full" or key == query:
        return True
    if kind == "prefix":
        return key < query or PREFIX[0][key] == 1
    if kind == "banded":
        return query - 3 < key < query
    return key < query


@pytest.mark.parametrize("kind", ["causal", "full", "prefix", "banded"])
def test_each_pair_of_positions_follows_the_rule(kind: Mask) -> None:
    segments, prefix = torch.tensor(SEGMENTS), torch.tensor(PREFIX)
    mask = additive_mask(segments, torch.float32, kind=kind, band_width=3, prefix_BT=prefix)
    assert mask.shape == (1, 1, 10, 10)
    for query in range(10):
        for key in range(10):
            expected = 0.0 if may_look(kind, query, key) else -math.inf
            assert mask[0, 0, query, key].item() == expected, (query, key)


def test_a_prefix_mask_without_a_prefix_is_causal() -> None:
    segments = torch.tensor(SEGMENTS)
    causal = additive_mask(segments, torch.float32)
    assert torch.equal(additive_mask(segments, torch.float32, kind="prefix"), causal)


def test_what_is_written_looks_at_what_is_read_of_its_segment_and_padding_is_never_empty() -> None:
    mask = memory_mask(torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 2, 2]]), torch.float32)
    hidden = -math.inf
    assert mask[0, 0].tolist() == [[0, 0, hidden, hidden], [hidden, hidden, 0, 0], [0, 0, 0, 0]]
