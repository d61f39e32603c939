from __future__ import annotations

import numpy as np
import pytest

from sanbai.evaluation.few_shot import FewShotScores
from sanbai.evaluation.statistics import Estimate
from sanbai.evaluation.tax import alignment_tax

BITS = np.array([100.0, 260.0, 90.0])
NUM_BYTES = [50, 120, 40]


def few_shot(right: dict[str, float]) -> FewShotScores:
    whole = Estimate(0.5, 0.4, 0.6, len(right))
    return FewShotScores(accuracy={0: whole}, by_task={"t": {0: whole}}, right={0: right}, chance=0.25, dropped_shots=0)


def test_tax_by_hand() -> None:
    later = np.array([110.0, 286.0, 99.0])
    tax = alignment_tax(BITS, later, NUM_BYTES, seed=0)
    assert tax.bits_per_byte.mean == pytest.approx(495 / 210 - 450 / 210)
    # Every document costs a tenth more, so that no resampling can change the relative tax.
    assert (tax.relative.low, tax.relative.mean, tax.relative.high) == pytest.approx((0.1, 0.1, 0.1))
    assert tax.few_shot == {}


def test_a_model_pays_no_tax_against_itself() -> None:
    tax = alignment_tax(BITS, BITS, NUM_BYTES, seed=0)
    assert tax.bits_per_byte == Estimate(0.0, 0.0, 0.0, 3)


def test_few_shot_change_is_paired_by_question() -> None:
    earlier, later = few_shot({"a": 1.0, "b": 1.0, "c": 0.0}), few_shot({"c": 0.0, "b": 0.5, "a": 1.0})
    tax = alignment_tax(BITS, BITS, NUM_BYTES, earlier_few_shot=earlier, later_few_shot=later, seed=0)
    assert tax.few_shot[0].mean == pytest.approx(-0.5 / 3)
    assert tax.few_shot[0].high == 0.0
    assert set(tax.to_json()) == {"bits_per_byte", "relative", "few_shot"}
    assert list(tax.to_json()["few_shot"]) == ["0"]
