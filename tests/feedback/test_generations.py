from __future__ import annotations

import pytest

from sanbai.feedback.accounts import Account
from sanbai.feedback.conversations import Message, add_message, delete_conversation, list_messages, open_conversation
from sanbai.feedback.generations import (
    Ending,
    Plan,
    append_piece,
    begin_generations,
    end_generation,
    find_generation,
    list_generations,
    recover_generations,
)
from sanbai.feedback.store import Store
from sanbai.foundation.errors import UnknownNameError

PLAN = Plan("ppo-1", {"temperature": 0.7}, 11, 9)


@pytest.fixture
def asked(store: Store, anna: Account) -> Message:
    return add_message(store, anna, open_conversation(store, anna), content="Who bakes?")


def test_a_generation_becomes_the_message_whose_id_it_promised(store: Store, anna: Account, asked: Message) -> None:
    (made,) = begin_generations(store, asked, [PLAN])
    assert find_generation(store, anna, made.id).state == "running"
    append_piece(store, made, 0, "An")
    end_generation(store, made, "Anna bakes.", Ending("done", "stop", 3, 0.5))
    answer = list_messages(store, anna, asked.conversation_id)[-1]
    assert (answer.id, answer.parent_id, answer.role, answer.content) == (
        made.message_id,
        asked.id,
        "assistant",
        "Anna bakes.",
    )
    found = find_generation(store, anna, made.id)
    assert (found.plan, found.ending) == (PLAN, Ending("done", "stop", 3, 0.5))


def test_drafts_form_a_pair(store: Store, anna: Account, asked: Message) -> None:
    first, second = begin_generations(store, asked, [PLAN, PLAN], drafts=True)
    assert first.draft_pair_id == second.draft_pair_id != ""
    assert (first.position, second.position) == (0, 1)
    assert list_generations(store, anna, asked.conversation_id) == [first, second]


def test_a_killed_servers_answers_are_kept_as_far_as_they_came(store: Store, anna: Account, asked: Message) -> None:
    running, done = begin_generations(store, asked, [PLAN, PLAN])
    end_generation(store, done, "whole", Ending("done", "stop", 1, 0.1))
    append_piece(store, running, 0, "Anna ")
    append_piece(store, running, 1, "ba")
    assert recover_generations(store) == 1
    assert recover_generations(store) == 0
    assert find_generation(store, anna, running.id).state == "interrupted"
    assert {one.content for one in list_messages(store, anna, asked.conversation_id)} == {
        "Who bakes?",
        "whole",
        "Anna ba",
    }


def test_an_answer_that_ends_after_its_conversation_was_deleted_leaves_no_text(
    store: Store, anna: Account, asked: Message
) -> None:
    (made,) = begin_generations(store, asked, [PLAN])
    append_piece(store, made, 0, "sec")
    delete_conversation(store, anna, asked.conversation_id)
    append_piece(store, made, 1, "ret")
    end_generation(store, made, "secret", Ending("done", "stop", 1, 0.1))
    with store.read() as connection:
        contents = connection.exec_driver_sql("SELECT content FROM message").scalars().all()
        assert connection.exec_driver_sql("SELECT count(*) FROM generation_piece").scalar() == 0
    assert set(contents) == {""}


def test_anothers_generation_is_unknown(store: Store, bert: Account, asked: Message) -> None:
    (made,) = begin_generations(store, asked, [PLAN])
    with pytest.raises(UnknownNameError, match="no such generation"):
        find_generation(store, bert, made.id)
