"""Days, cost and optimal sizes against what was published about real runs."""

from __future__ import annotations

import pytest

from sanbai.model.size import Shape, count_parameters
from sanbai.training.plan import (
    ACCELERATORS,
    Request,
    compute_optimal_parameters,
    compute_optimal_tokens,
    make_plan,
    training_cost,
    training_days,
    training_operations,
)

GPT3 = Shape(
    vocab_size=50_257, num_layers=96, width=12_288, embedding_width=12_288, num_heads=96, heads_width=12_288,
    kv_heads_width=12_288, feed_forward_width=4 * 12_288, num_vectors=2048, bias=True, norm_vectors=2,
)  # fmt: skip
MONTH, YEAR = 30.44, 365.25


def make_request(**changes: object) -> Request:
    values = {
        "accelerator": ACCELERATORS["a100"], "count": 1024, "utilisation": 0.37, "hourly_price": 2.0, "tokens": 300e9,
        "length": 2048, "rows": 1, "recompute": "scores", "sequences": 16, "machine_bytes": 16 * 10**9,
    }  # fmt: skip
    return Request(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("accelerator", "count", "utilisation", "days"),
    [("v100", 8, 0.27, 36 * YEAR), ("v100", 512, 0.27, 7 * MONTH), ("a100", 1024, 0.37, MONTH)],
)
def test_gpt3_takes_the_published_time_within_a_fifth(
    accelerator: str, count: int, utilisation: float, days: float
) -> None:
    operations = training_operations(GPT3, tokens=300e9, length=2048)
    taken = training_days(operations, ACCELERATORS[accelerator], count=count, utilisation=utilisation)
    assert taken == pytest.approx(days, rel=0.2)


def test_gpt3_takes_the_operations_of_its_paper() -> None:
    """3.14e23 (Brown et al. 2020, arXiv:2005.14165, table D.1), which leaves out the scores."""
    assert training_operations(GPT3, tokens=300e9, length=2048) == pytest.approx(3.14e23, rel=0.05)


def test_the_cost_is_devices_times_hours_times_price() -> None:
    assert training_cost(2.5, count=8, hourly_price=3.0) == 2.5 * 24 * 8 * 3.0


@pytest.mark.parametrize(
    ("parameters", "tokens", "operations"),
    [(400e6, 8e9, 1.92e19), (1e9, 20.2e9, 1.21e20), (10e9, 205.1e9, 1.23e22), (67e9, 1.5e12, 5.76e23)],
)
def test_the_compute_optimum_is_that_of_table_three(parameters: float, tokens: float, operations: float) -> None:
    """Hoffmann et al. 2022, arXiv:2203.15556, table 3."""
    assert compute_optimal_tokens(parameters) == pytest.approx(tokens, rel=0.15)
    assert compute_optimal_parameters(operations) == pytest.approx(parameters, rel=0.05)


def test_a_plan_says_which_layouts_fit_and_whether_this_machine_is_enough() -> None:
    plan = make_plan(GPT3, make_request())
    assert plan.fitting == ("tensor 8, pipeline 8",)
    assert make_plan(GPT3, make_request(recompute="all")).fitting == ("fully sharded", "tensor 8, pipeline 8")
    assert not plan.trains_here
    assert not plan.serves_here
    large = make_plan(GPT3, make_request(machine_bytes=10**13))
    assert large.trains_here
    assert large.serves_here


def test_an_encoder_reads_the_length_and_its_decoder_the_target_of_span_corruption() -> None:
    base = Shape(
        vocab_size=32_128, num_layers=12, encoder_layers=12, width=768, embedding_width=768, num_heads=12,
        heads_width=768, kv_heads_width=768, feed_forward_width=3072, tied=False,
    )  # fmt: skip
    plan = make_plan(base, make_request(length=512, tokens=626e9))
    assert plan.operations.layers == pytest.approx(124e9, rel=0.005)
    assert plan.operations_in_all == pytest.approx(1e9 * plan.operations.training)
    assert plan.optimal_tokens == 20 * count_parameters(base).total
