"""The gate's verdicts, each limit at its edge."""

import pytest

from sanbai.evaluation.statistics import Estimate
from sanbai.rounds.gate import GateRecipe, Verdict, decide

FLAT = Estimate(0.0, -0.02, 0.02, 600)


def judge(
    *,
    win: tuple[float, float, float] = (0.6, 0.56, 0.64),
    axes: dict[str, Estimate] | None = None,
    kinds: dict[str, Estimate] | None = None,
    bits: float = 1.0,
    setbacks: tuple[str, ...] = (),
) -> Verdict:
    everything_level = {"helpful": FLAT, "honest": FLAT, "harmless": FLAT}
    return decide(
        GateRecipe(),
        win_rate=Estimate(*win, 600),
        axes={**everything_level, **(axes or {})},
        kinds={"chat": FLAT, **(kinds or {})},
        bits_per_byte=bits,
        reference_bits_per_byte=1.0,
        setbacks=setbacks,
    )


def test_a_better_policy_is_promoted() -> None:
    verdict = judge()
    assert verdict.promote
    assert verdict.summary == "promoted"


@pytest.mark.parametrize(("low", "promoted"), [(0.5, False), (0.5001, True)])
def test_the_lower_end_of_the_win_rate_must_lie_above_one_half(low: float, promoted: bool) -> None:
    assert judge(win=(0.55, low, 0.6)).promote is promoted


@pytest.mark.parametrize(("high", "promoted"), [(-0.001, False), (0.0, True)])
def test_an_axis_that_is_surely_worse_refuses(high: float, promoted: bool) -> None:
    verdict = judge(axes={"honest": Estimate(-0.05, -0.1, high, 600)})
    assert verdict.promote is promoted


def test_a_kind_that_is_surely_a_little_worse_is_named_once_but_does_not_refuse() -> None:
    setback = "rewrite: gold utility -0.060"
    verdict = judge(kinds={"rewrite": Estimate(-0.06, -0.09, -0.03, 80)}, setbacks=(setback, "chat: honest -0.110"))
    assert verdict.promote
    assert verdict.summary == f"promoted (worse: {setback}; chat: honest -0.110)"


def test_a_kind_that_is_surely_much_worse_refuses_and_says_so() -> None:
    verdict = judge(kinds={"rewrite": Estimate(-0.3, -0.4, -0.11, 80)})
    assert not verdict.promote
    assert "kind rewrite -0.300 [-0.400, -0.110], wanted an upper end of at least -0.1" in verdict.summary


@pytest.mark.parametrize(("bits", "promoted"), [(1.03, True), (1.0301, False)])
def test_bits_per_byte_may_rise_by_three_percent(bits: float, promoted: bool) -> None:
    assert judge(bits=bits).promote is promoted
