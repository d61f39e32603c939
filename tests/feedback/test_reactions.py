from __future__ import annotations

import pytest
from sqlalchemy import select

from sanbai.feedback import schema
from sanbai.feedback.accounts import Account
from sanbai.feedback.conversations import Message, add_message, open_conversation
from sanbai.feedback.generations import Ending, Plan, begin_generations, end_generation
from sanbai.feedback.reactions import Thumb, add_thumb, choices_of, choose_draft, thumbs_of
from sanbai.feedback.store import Store
from sanbai.foundation.errors import DataError, UnknownNameError


@pytest.fixture
def asked(store: Store, anna: Account) -> Message:
    return add_message(store, anna, open_conversation(store, anna), content="Who bakes?")


def answers(store: Store, asked: Message) -> tuple[str, list[str]]:
    """Make two drafts; returns the pair's id and the messages'."""
    drafts = begin_generations(store, asked, [Plan("m", {}, seed, 3) for seed in (1, 2)], drafts=True)
    for draft in drafts:
        end_generation(store, draft, f"draft {draft.position}", Ending("done", "stop", 2, 0.1))
    return drafts[0].draft_pair_id, [draft.message_id for draft in drafts]


def test_a_change_of_mind_is_a_new_row_that_names_the_old(store: Store, anna: Account, asked: Message) -> None:
    _, (message_id, _) = answers(store, asked)
    first = add_thumb(store, anna, message_id, Thumb(1))
    second = add_thumb(store, anna, message_id, Thumb(-1, "wrong", "it is not so"))
    with store.read() as connection:
        rows = connection.execute(select(schema.thumb).order_by(schema.thumb.c.id)).all()
    assert [(row.id, row.supersedes_id, row.value) for row in rows] == [(first, None, 1), (second, first, -1)]
    assert thumbs_of(store, anna, [message_id]) == {message_id: Thumb(-1, "wrong", "it is not so")}


def test_the_same_request_twice_is_one_row(store: Store, anna: Account, asked: Message) -> None:
    pair, (message_id, _) = answers(store, asked)
    assert len({add_thumb(store, anna, message_id, Thumb(1), idempotency_key="k") for _ in range(3)}) == 1
    assert len({choose_draft(store, anna, pair, 1, idempotency_key="k") for _ in range(3)}) == 1
    assert choices_of(store, anna, [pair]) == {pair: 1}


def test_a_key_that_was_used_for_something_else_is_refused(store: Store, anna: Account, asked: Message) -> None:
    _, (first, second) = answers(store, asked)
    add_thumb(store, anna, first, Thumb(1), idempotency_key="k")
    with pytest.raises(DataError, match="used before for something else"):
        add_thumb(store, anna, second, Thumb(1), idempotency_key="k")


def test_only_answers_get_thumbs(store: Store, anna: Account, asked: Message) -> None:
    with pytest.raises(DataError, match="thumbs are for the assistant"):
        add_thumb(store, anna, asked.id, Thumb(1))


def test_others_cannot_react(store: Store, bert: Account, asked: Message) -> None:
    pair, (message_id, _) = answers(store, asked)
    with pytest.raises(UnknownNameError):
        add_thumb(store, bert, message_id, Thumb(1))
    with pytest.raises(UnknownNameError):
        choose_draft(store, bert, pair, 0)


@pytest.mark.parametrize("value", [0, 2, -2])
def test_a_thumb_is_up_or_down(store: Store, anna: Account, asked: Message, value: int) -> None:
    _, (message_id, _) = answers(store, asked)
    with pytest.raises(DataError, match="wanted 1 or -1"):
        add_thumb(store, anna, message_id, Thumb(value))


@pytest.mark.parametrize("choice", [-1, 2])
def test_a_choice_is_one_of_two(store: Store, anna: Account, asked: Message, choice: int) -> None:
    pair, _ = answers(store, asked)
    with pytest.raises(DataError, match="wanted 0 or 1"):
        choose_draft(store, anna, pair, choice)
