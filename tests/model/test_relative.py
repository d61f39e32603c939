"""Relative positions against T5's rule in plain Python numbers."""

from __future__ import annotations

import math

import pytest
import torch

from sanbai.model.config import ModelConfig
from sanbai.model.relative import RelativeBias, distance_bucket


def slow_bucket(ahead: int, num_buckets: int, max_distance: int, *, bidirectional: bool) -> int:
    first = 0
    if bidirectional:
        num_buckets //= 2
        first = num_buckets if ahead > 0 else 0
    elif ahead > 0:
        return 0
    distance, exact = abs(ahead), num_buckets // 2
    if distance < exact:
        return first + distance
    octaves = math.log(distance / exact) / math.log(max_distance / exact)
    return first + min(exact + int(octaves * (num_buckets - exact) + 1e-6), num_buckets - 1)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 12), (16, 1000)])
def test_the_class_of_a_distance_is_t5s(num_buckets: int, max_distance: int, bidirectional: bool) -> None:
    ahead = torch.arange(-300, 301)
    options = {"num_buckets": num_buckets, "max_distance": max_distance, "bidirectional": bidirectional}
    found = distance_bucket(ahead, **options).tolist()
    expected = [slow_bucket(value, num_buckets, max_distance, bidirectional=bidirectional) for value in ahead.tolist()]
    assert found == expected
    assert max(found) < num_buckets


def test_the_bias_of_two_positions_is_that_of_their_distance() -> None:
    config = ModelConfig(positions="relative", relative_buckets=8, relative_distance=12)
    bias = RelativeBias(config)
    assert bias(9).shape == (1, config.num_heads, 9, 9)
    for query, key in ((0, 8), (5, 5), (8, 1)):
        assert torch.equal(bias(9)[0, :, query, key], bias.of(torch.tensor(key - query)))
