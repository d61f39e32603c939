"""Parts side by side: the results, their order, and what holds in the other threads."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from sanbai.foundation.parallel import map_parts, use_threads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    use_threads(2)
    yield
    use_threads(1)


def test_results_come_in_the_parts_order_from_several_threads() -> None:
    both_began = threading.Barrier(2, timeout=20)

    def square(part: int) -> int:
        if part < 2:
            both_began.wait()  # neither could pass it alone
        return part * part

    assert map_parts(square, range(5)) == [0, 1, 4, 9, 16]


def test_one_thread_computes_in_the_callers() -> None:
    use_threads(1)
    assert set(map_parts(lambda _: threading.get_ident(), range(3))) == {threading.get_ident()}


def test_the_callers_gradient_mode_holds_in_the_parts() -> None:
    weight = torch.ones(2, requires_grad=True)
    assert all(map_parts(lambda _: (weight * 2).requires_grad, range(4)))
    with torch.no_grad():
        assert not any(map_parts(lambda _: (weight * 2).requires_grad, range(4)))


def test_parts_of_parts_do_not_wait_for_each_other() -> None:
    inner = lambda part: sum(map_parts(lambda number: number * part, range(4)))  # noqa: E731
    assert map_parts(inner, range(6)) == [6 * part for part in range(6)]


def test_a_failure_is_raised_when_its_neighbour_has_ended_and_no_other_part_begins() -> None:
    failed = threading.Event()
    begun, ended = [], []

    def work(part: int) -> None:
        begun.append(part)
        if part == 1:
            failed.set()
            raise ValueError(part)
        assert failed.wait(timeout=20)
        time.sleep(0.2)
        ended.append(part)

    with pytest.raises(ValueError, match="1"):
        map_parts(work, range(50))
    assert 0 in ended
    assert sorted(begun) == sorted([1, *ended])
    assert len(begun) < 50


def test_the_callers_autocast_holds_in_the_parts() -> None:
    matrix = torch.eye(2)
    assert set(map_parts(lambda _: (matrix @ matrix).dtype, range(4))) == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        assert set(map_parts(lambda _: (matrix @ matrix).dtype, range(4))) == {torch.bfloat16}
