"""Oracle: lm-human-preferences' rule in plain floats."""

from __future__ import annotations

import pytest

from sanbai.training.kl_controller import KlController


def adaptive(coef: float = 0.2) -> KlController:
    return KlController(coef, kind="adaptive", target=6.0, horizon=10_000)


def test_trap_22_at_twice_the_target_beta_follows_the_golden_trace() -> None:
    """A hundred iterations of 256 episodes: times 1.00512 each, from 0.2 to 0.333."""
    controller = adaptive()
    trace = []
    for _ in range(100):
        controller.see(12.0, num_episodes=256)
        trace.append(controller.coef)
    assert trace[0] / 0.2 == pytest.approx(1.00512, rel=1e-12)
    assert trace == pytest.approx([0.2 * 1.00512**step for step in range(1, 101)], rel=1e-9)
    assert trace[-1] == pytest.approx(0.333, abs=5e-4)


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.0, 1.0), (6.6, 1 + 0.1 * 0.0512), (600.0, 1 + 0.2 * 0.0512), (5.4, 1 - 0.1 * 0.0512), (-3.0, 1 - 0.2 * 0.0512)],
)
def test_trap_22_the_error_is_clipped_and_episodes_are_counted(kl: float, factor: float) -> None:
    controller = adaptive()
    controller.see(kl, num_episodes=512)
    assert controller.coef == pytest.approx(0.2 * factor, rel=1e-12)


def test_trap_22_a_fixed_beta_stays() -> None:
    controller = KlController(0.02, kind="fixed", target=6.0, horizon=10_000)
    controller.see(600.0, num_episodes=512)
    assert controller.coef == 0.02


def test_trap_22_a_loaded_controller_goes_on_to_the_same_bit() -> None:
    undisturbed, before, after = adaptive(), adaptive(), adaptive(9.0)
    for kl in (12.0, 5.5):
        undisturbed.see(kl, num_episodes=256)
    before.see(12.0, num_episodes=256)
    after.load(before.tensors())
    after.see(5.5, num_episodes=256)
    assert after.coef == undisturbed.coef
