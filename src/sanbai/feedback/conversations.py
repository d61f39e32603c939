"""Conversations: a tree of messages that one account owns. An edit or another answer is a sibling, nothing is replaced.

The texts of a deleted conversation are emptied here, in the same transaction as the row that says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, Connection, exists, func, select, update

from sanbai.feedback import schema
from sanbai.feedback.accounts import Account
from sanbai.feedback.identifiers import new_id, now_ms
from sanbai.feedback.store import Store
from sanbai.foundation.errors import DataError, UnknownNameError

MessageRole = Literal["system", "user", "assistant", "tool"]

LONGEST_TITLE = 200


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation in a list.

    Attributes:
        id: sorts by the time it was opened.
        title: what its owner called it, or the beginning of its first message; empty while there is none.
        updated: milliseconds since 1970.
    """

    id: str
    title: str
    updated: int


@dataclass(frozen=True, slots=True)
class Message:
    """One node of the tree; `parent_id` is empty at a root."""

    id: str
    conversation_id: str
    parent_id: str
    role: MessageRole
    content: str


def open_conversation(store: Store, owner: Account) -> str:
    """Make an empty conversation and return its id."""
    conversation_id = new_id()
    with store.write() as connection:
        connection.execute(schema.conversation.insert().values(id=conversation_id, owner_id=owner.id, created=now_ms()))
    return conversation_id


def check_owner(connection: Connection, owner: Account, conversation_id: str) -> None:
    """Make sure that a conversation exists, is not deleted and is the account's own.

    Raises:
        UnknownNameError: otherwise; which of the three is not told.
    """
    table = schema.conversation
    found = connection.execute(
        select(table.c.id).where(table.c.id == conversation_id, table.c.owner_id == owner.id, ~_deleted())
    ).first()
    if found is None:
        raise UnknownNameError(f"{conversation_id}: no such conversation")


def list_conversations(store: Store, owner: Account, *, before: str = "", limit: int = 50) -> list[Conversation]:
    """Return an account's conversations, newest first.

    Args:
        store: the store.
        owner: whose.
        before: only those opened before this one; empty for all.
        limit: at most so many.
    """
    table = schema.conversation
    with store.read() as connection:
        query = select(table).where(table.c.owner_id == owner.id, ~_deleted())
        if before:
            query = query.where(table.c.id < before)
        rows = connection.execute(query.order_by(table.c.id.desc()).limit(limit)).all()
        ids = [row.id for row in rows]
        titles = _titles(connection, ids)
        spoken = connection.execute(
            select(schema.message.c.conversation_id, func.max(schema.message.c.created).label("last"))
            .where(schema.message.c.conversation_id.in_(ids))
            .group_by(schema.message.c.conversation_id)
        )
        updated = {row.conversation_id: row.last for row in spoken}
    return [Conversation(row.id, titles.get(row.id, ""), updated.get(row.id, row.created)) for row in rows]


def find_title(store: Store, owner: Account, conversation_id: str) -> str:
    """Return a conversation's title.

    Raises:
        UnknownNameError: not the account's.
    """
    with store.read() as connection:
        check_owner(connection, owner, conversation_id)
        return _titles(connection, [conversation_id]).get(conversation_id, "")


def set_title(store: Store, owner: Account, conversation_id: str, title: str) -> None:
    """Name a conversation.

    Raises:
        UnknownNameError: not the account's.
        DataError: the title is empty or too long.
    """
    if not 1 <= len(title.strip()) <= LONGEST_TITLE:
        raise DataError(f"a title of {len(title.strip())} characters; wanted 1 to {LONGEST_TITLE}")
    with store.write() as connection:
        check_owner(connection, owner, conversation_id)
        connection.execute(
            schema.conversation_title.insert().values(
                id=new_id(), conversation_id=conversation_id, title=title.strip(), created=now_ms()
            )
        )


def delete_conversation(store: Store, owner: Account, conversation_id: str) -> None:
    """Mark a conversation deleted and empty every text of it: messages, titles, comments, tasks made of it.

    Rows and their ids stay, so that lineage can still say which models it shaped.

    Raises:
        UnknownNameError: not the account's.
    """
    message, piece = schema.message, schema.generation_piece
    with store.write() as connection:
        check_owner(connection, owner, conversation_id)
        connection.execute(
            schema.conversation_deleted.insert().values(
                conversation_id=conversation_id, actor_id=owner.id, created=now_ms()
            )
        )
        messages = select(message.c.id).where(message.c.conversation_id == conversation_id)
        generations = select(schema.generation.c.id).where(schema.generation.c.parent_id.in_(messages))
        tasks = select(schema.label_task.c.id).where(schema.label_task.c.conversation_id == conversation_id)
        answers = select(schema.ranking.c.id).where(schema.ranking.c.task_id.in_(tasks))
        for statement in (
            update(message).where(message.c.conversation_id == conversation_id).values(content=""),
            update(schema.conversation_title)
            .where(schema.conversation_title.c.conversation_id == conversation_id)
            .values(title=""),
            update(schema.thumb).where(schema.thumb.c.message_id.in_(messages)).values(reason="", comment=""),
            update(piece).where(piece.c.generation_id.in_(generations)).values(text=""),
            update(schema.rating).where(schema.rating.c.ranking_id.in_(answers)).values(note=""),
            update(schema.label_task)
            .where(schema.label_task.c.conversation_id == conversation_id)
            .values(messages=[], responses=[]),
        ):
            connection.execute(statement)
    store.forget_log()


def add_message(
    store: Store, owner: Account, conversation_id: str, *, content: str, parent_id: str = "", role: MessageRole = "user"
) -> Message:
    """Append what someone said.

    Args:
        store: the store.
        owner: the conversation's.
        conversation_id: where.
        content: the text.
        parent_id: the message it answers, of the same conversation; empty at the beginning.
        role: who speaks.

    Raises:
        UnknownNameError: no such conversation or parent.
        DataError: the content is empty.
    """
    if not content.strip():
        raise DataError("an empty message; write something")
    said = Message(new_id(), conversation_id, parent_id, role, content)
    with store.write() as connection:
        check_owner(connection, owner, conversation_id)
        if parent_id:
            parent = connection.execute(
                select(schema.message.c.id).where(
                    schema.message.c.id == parent_id, schema.message.c.conversation_id == conversation_id
                )
            ).first()
            if parent is None:
                raise UnknownNameError(f"{parent_id}: no such message in this conversation")
        insert_message(connection, said)
    return said


def insert_message(connection: Connection, message: Message) -> None:
    """Append a message inside a transaction."""
    connection.execute(
        schema.message.insert().values(
            id=message.id,
            conversation_id=message.conversation_id,
            parent_id=message.parent_id or None,
            role=message.role,
            content=message.content,
            created=now_ms(),
        )
    )


def find_message(store: Store, owner: Account, message_id: str) -> Message:
    """Return one message of an account's conversations.

    Raises:
        UnknownNameError: there is none.
    """
    with store.read() as connection:
        return owned_message(connection, owner, message_id)


def owned_message(connection: Connection, owner: Account, message_id: str) -> Message:
    """Return one message inside a transaction; see `find_message`."""
    row = connection.execute(select(schema.message).where(schema.message.c.id == message_id)).first()
    if row is None:
        raise UnknownNameError(f"{message_id}: no such message")
    try:
        check_owner(connection, owner, row.conversation_id)
    except UnknownNameError:
        raise UnknownNameError(f"{message_id}: no such message") from None
    return message_of_row(row)


def list_messages(store: Store, owner: Account, conversation_id: str) -> list[Message]:
    """Return all messages of a conversation, in the order they were begun.

    Raises:
        UnknownNameError: not the account's.
    """
    with store.read() as connection:
        check_owner(connection, owner, conversation_id)
        rows = connection.execute(
            select(schema.message)
            .where(schema.message.c.conversation_id == conversation_id)
            .order_by(schema.message.c.id)
        )
        return [message_of_row(row) for row in rows]


def path_to(store: Store, message: Message) -> list[Message]:
    """Return the messages from the conversation's beginning to this one."""
    table = schema.message
    with store.read() as connection:
        rows = connection.execute(select(table).where(table.c.conversation_id == message.conversation_id))
        return lineage({row.id: message_of_row(row) for row in rows}, message.id)


def lineage(messages: dict[str, Message], message_id: str) -> list[Message]:
    """Return the messages from the root to `message_id`, which must all be in `messages`."""
    path: list[Message] = []
    while message_id:
        path.append(messages[message_id])
        message_id = messages[message_id].parent_id
    return path[::-1]


def message_of_row(row: Any) -> Message:
    """Return the message that a row of `message` holds."""
    return Message(row.id, row.conversation_id, row.parent_id or "", cast("MessageRole", row.role), row.content)


def _deleted() -> ColumnElement[bool]:
    gone = schema.conversation_deleted
    return exists().where(gone.c.conversation_id == schema.conversation.c.id)


def _titles(connection: Connection, ids: list[str]) -> dict[str, str]:
    """Return the newest title of each, or the beginning of its first message."""
    message, title = schema.message, schema.conversation_title
    first = (
        select(func.min(message.c.id))
        .where(message.c.conversation_id.in_(ids), message.c.role == "user")
        .group_by(message.c.conversation_id)
    )
    begun = connection.execute(select(message.c.conversation_id, message.c.content).where(message.c.id.in_(first)))
    titles = {row.conversation_id: _shorten(row.content) for row in begun}
    given = connection.execute(
        select(title.c.conversation_id, title.c.title).where(title.c.conversation_id.in_(ids)).order_by(title.c.id)
    )
    return titles | {row.conversation_id: row.title for row in given}


def _shorten(content: str, length: int = 60) -> str:
    line = " ".join(content.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
