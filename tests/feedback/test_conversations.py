from __future__ import annotations

import pytest

from sanbai.feedback.accounts import Account
from sanbai.feedback.conversations import (
    add_message,
    delete_conversation,
    find_message,
    find_title,
    list_conversations,
    list_messages,
    open_conversation,
    path_to,
    set_title,
)
from sanbai.feedback.store import Store
from sanbai.foundation.errors import DataError, UnknownNameError


def test_an_edit_is_a_sibling_and_a_path_leads_from_the_beginning(store: Store, anna: Account) -> None:
    place = open_conversation(store, anna)
    root = add_message(store, anna, place, content="one")
    answer = add_message(store, anna, place, content="two", parent_id=root.id, role="assistant")
    left = add_message(store, anna, place, content="three", parent_id=answer.id)
    right = add_message(store, anna, place, content="four", parent_id=answer.id)
    assert [one.content for one in path_to(store, left)] == ["one", "two", "three"]
    assert [one.content for one in path_to(store, right)] == ["one", "two", "four"]
    assert list_messages(store, anna, place) == [root, answer, left, right]


def test_conversations_come_newest_first_in_pages(store: Store, anna: Account) -> None:
    ids = [open_conversation(store, anna) for _ in range(5)]
    first = list_conversations(store, anna, limit=2)
    rest = list_conversations(store, anna, before=first[-1].id, limit=10)
    assert [one.id for one in first + rest] == ids[::-1]


def test_a_title_is_the_first_message_until_one_is_given(store: Store, anna: Account) -> None:
    place = open_conversation(store, anna)
    assert find_title(store, anna, place) == ""
    add_message(store, anna, place, content="  Who  bakes\nbread? " + "x" * 100)
    title = find_title(store, anna, place)
    assert title.startswith("Who bakes bread? xxx")
    assert len(title) == 60
    set_title(store, anna, place, "Bread")
    set_title(store, anna, place, "Better bread")
    assert find_title(store, anna, place) == "Better bread"
    assert list_conversations(store, anna)[0].title == "Better bread"
    with pytest.raises(DataError, match="a title of 0 characters"):
        set_title(store, anna, place, "  ")


def test_nobody_sees_what_another_wrote(store: Store, anna: Account, bert: Account) -> None:
    place = open_conversation(store, anna)
    said = add_message(store, anna, place, content="mine")
    for attempt in (
        lambda: list_messages(store, bert, place),
        lambda: find_title(store, bert, place),
        lambda: set_title(store, bert, place, "his"),
        lambda: add_message(store, bert, place, content="his"),
        lambda: delete_conversation(store, bert, place),
        lambda: find_message(store, bert, said.id),
    ):
        with pytest.raises(UnknownNameError):
            attempt()
    assert list_conversations(store, bert) == []


def test_a_deleted_conversation_is_gone(store: Store, anna: Account) -> None:
    place = open_conversation(store, anna)
    said = add_message(store, anna, place, content="mine")
    delete_conversation(store, anna, place)
    assert list_conversations(store, anna) == []
    with pytest.raises(UnknownNameError):
        find_message(store, anna, said.id)
    with pytest.raises(UnknownNameError):
        delete_conversation(store, anna, place)


def test_a_parent_of_another_conversation_is_refused(store: Store, anna: Account) -> None:
    here, there = open_conversation(store, anna), open_conversation(store, anna)
    said = add_message(store, anna, there, content="there")
    with pytest.raises(UnknownNameError, match="no such message in this conversation"):
        add_message(store, anna, here, content="here", parent_id=said.id)


def test_an_empty_message_is_refused(store: Store, anna: Account) -> None:
    place = open_conversation(store, anna)
    with pytest.raises(DataError, match="empty message"):
        add_message(store, anna, place, content=" \n ")
