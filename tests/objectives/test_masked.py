"""Oracle: Python's statistics module over the tokens that count."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sanbai.objectives.masked import masked_mean, masked_sum, masked_variance, whiten

LENGTHS = [5, 20, 50, 3]


def ragged(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    value_BT = torch.randn(4, 50, generator=torch.Generator().manual_seed(seed)) * 3 + 2
    mask_BT = (torch.arange(50) < torch.tensor(LENGTHS)[:, None]).float()
    flat = [value_BT[row, t].item() for row, length in enumerate(LENGTHS) for t in range(length)]
    return value_BT, mask_BT, flat


def test_masked_statistics_equal_those_of_the_plain_list() -> None:
    value_BT, mask_BT, flat = ragged()
    assert masked_sum(value_BT, mask_BT).item() == pytest.approx(math.fsum(flat), rel=1e-5)
    assert masked_mean(value_BT, mask_BT).item() == pytest.approx(statistics.fmean(flat), rel=1e-5)
    assert masked_variance(value_BT, mask_BT).item() == pytest.approx(statistics.pvariance(flat), rel=1e-5)


@pytest.mark.parametrize("garbage", [1e9, math.inf, math.nan])
def test_trap_13_whitening_counts_valid_tokens_only_whatever_padding_holds(garbage: float) -> None:
    value_BT, mask_BT, flat = ragged()
    spoiled_BT = torch.where(mask_BT.bool(), value_BT, garbage)
    white_BT = whiten(spoiled_BT, mask_BT)
    valid = white_BT[mask_BT.bool()].tolist()
    assert statistics.fmean(valid) == pytest.approx(0.0, abs=1e-5)
    assert statistics.pvariance(valid) == pytest.approx(1.0, rel=1e-5)
    expected = [(x - statistics.fmean(flat)) / statistics.pstdev(flat) for x in flat]
    assert valid == pytest.approx(expected, abs=1e-5)
    assert white_BT[~mask_BT.bool()].abs().max() == 0.0


def test_trap_19_constant_advantages_whiten_to_zero_not_to_infinity() -> None:
    value_BT = torch.full((2, 4), 3.7)
    assert whiten(value_BT, torch.ones(2, 4)).abs().max() == 0.0


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=20), st.integers(0, 30))
def test_padding_does_not_change_a_mean(values: list[float], padding: int) -> None:
    value_T = torch.tensor(values + [math.nan] * padding)
    mask_T = torch.tensor([1.0] * len(values) + [0.0] * padding)
    assert masked_mean(value_T, mask_T).item() == pytest.approx(statistics.fmean(values), abs=1e-3)
