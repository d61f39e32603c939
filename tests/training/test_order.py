from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sanbai.training.order import endless_order


@given(st.integers(1, 20), st.integers(0, 50), st.integers(0, 30), st.integers(0, 3))
def test_a_walk_started_later_is_the_rest_of_the_same_walk(num_items: int, start: int, count: int, seed: int) -> None:
    whole = endless_order(num_items, start=0, count=start + count, seed=seed)
    assert endless_order(num_items, start=start, count=count, seed=seed) == whole[start:]


@given(st.integers(1, 20), st.integers(0, 3))
def test_every_epoch_visits_every_item_once(num_items: int, seed: int) -> None:
    walk = endless_order(num_items, start=0, count=3 * num_items, seed=seed)
    for epoch in range(3):
        assert Counter(walk[epoch * num_items : (epoch + 1) * num_items]) == Counter(range(num_items))


def test_epochs_and_seeds_differ_in_order() -> None:
    walk = endless_order(50, start=0, count=100, seed=0)
    assert walk[:50] != walk[50:]
    assert walk != endless_order(50, start=0, count=100, seed=1)
