from __future__ import annotations

import pytest

from sanbai.feedback.accounts import Account
from sanbai.feedback.demonstrations import add_demonstration
from sanbai.feedback.store import Store
from sanbai.foundation.errors import DataError

QUESTION = {"role": "user", "content": "Who bakes?"}
ANSWER = {"role": "assistant", "content": "Anna."}


def test_the_same_request_twice_is_one_demonstration(store: Store, anna: Account) -> None:
    first = add_demonstration(store, anna, [QUESTION, ANSWER], idempotency_key="k")
    assert add_demonstration(store, anna, [QUESTION, ANSWER], idempotency_key="k") == first
    assert add_demonstration(store, anna, [QUESTION, ANSWER]) != first


@pytest.mark.parametrize(
    "messages", [[], [ANSWER], [QUESTION], [QUESTION, ANSWER, ANSWER], [QUESTION, {**ANSWER, "content": " "}]]
)
def test_a_demonstration_ends_in_one_answer(store: Store, anna: Account, messages: list[dict[str, str]]) -> None:
    with pytest.raises(DataError):
        add_demonstration(store, anna, messages)
