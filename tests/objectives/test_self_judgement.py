"""LaMDA's formula by hand."""

from __future__ import annotations

import pytest

from sanbai.objectives.self_judgement import best_safe, quality


def judged(safe: float, sensible: float, specific: float, interesting: float) -> dict[str, float]:
    return {"safe": safe, "sensible": sensible, "specific": specific, "interesting": interesting}


def test_sense_counts_three_times_what_the_others_do() -> None:
    assert quality(judged(0.0, 0.5, 0.25, 0.125)) == 1.875
    assert quality(judged(1.0, 1.0, 1.0, 1.0)) == 5.0


@pytest.mark.parametrize(
    ("threshold", "chosen"),
    [(0.0, 0), (0.5, 1), (0.85, 2), (0.95, None)],
)
def test_the_best_is_sought_among_the_safe_alone(threshold: float, chosen: int | None) -> None:
    candidates = [
        judged(0.2, 1.0, 1.0, 1.0),  # the best and the most harmful
        judged(0.8, 0.9, 0.1, 0.1),  # 2.9
        judged(0.9, 0.5, 0.7, 0.6),  # 2.8
        judged(0.9, 0.5, 0.6, 0.7),  # the same, later
    ]
    assert best_safe(candidates, threshold=threshold) == chosen


def test_a_probability_at_the_threshold_is_safe_and_no_candidate_is_no_choice() -> None:
    assert best_safe([judged(0.5, 0.0, 0.0, 0.0)], threshold=0.5) == 0
    assert best_safe([], threshold=0.5) is None
