import math

import pytest

from sanbai.training.schedule import cosine_rate, inverse_root_rate, warmup_rate


def test_the_cosine_climbs_then_falls_to_a_tenth() -> None:
    rates = [cosine_rate(step, peak=2.0, num_steps=104, warmup_steps=4) for step in range(104)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[-1] == pytest.approx(0.2)
    for step in range(4, 104):
        assert rates[step] == pytest.approx(2 * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - 4) / 99))))


def test_a_run_of_one_step_has_the_full_rate() -> None:
    assert cosine_rate(0, peak=1.0, num_steps=1, warmup_steps=0) == 1.0


def test_the_inverse_root_climbs_then_halves_as_the_steps_quadruple() -> None:
    rates = [inverse_root_rate(step, peak=2.0, warmup_steps=4) for step in range(64)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[15] == pytest.approx(1.0)
    assert rates[63] == pytest.approx(0.5)
    assert inverse_root_rate(0, peak=2.0, warmup_steps=0) == 2.0


def test_the_warmup_climbs_from_a_tenth_and_stays() -> None:
    rates = [warmup_rate(step, peak=1.0, warmup_steps=10) for step in range(13)]
    assert rates == pytest.approx([0.1 + 0.09 * step for step in range(10)] + [1.0] * 3)
    assert warmup_rate(0, peak=1.0, warmup_steps=0) == 1.0
