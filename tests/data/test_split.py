from __future__ import annotations

from sanbai.data.split import is_held_out


def test_the_share_is_held_out_within_chance() -> None:
    held_out = sum(is_held_out(f"cluster {number}", 0.1) for number in range(10_000))
    assert abs(held_out - 1000) < 4 * (10_000 * 0.1 * 0.9) ** 0.5


def test_a_larger_share_holds_out_the_same_and_more() -> None:
    names = [str(number) for number in range(1000)]
    small = {name for name in names if is_held_out(name, 0.05)}
    large = {name for name in names if is_held_out(name, 0.2)}
    assert small < large
