"""Reactions: thumbs and draft choices. Each is a fact of its own; neither is ever turned into a ranking.

A second thumb on the same message is a change of mind: a new row that names the one before. The same request sent twice
(equal idempotency key) is one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, select

from sanbai.feedback import schema
from sanbai.feedback.accounts import Account
from sanbai.feedback.conversations import check_owner, owned_message
from sanbai.feedback.identifiers import new_id, now_ms
from sanbai.feedback.store import Store
from sanbai.foundation.errors import DataError, UnknownNameError

LONGEST_COMMENT = 4000


@dataclass(frozen=True, slots=True)
class Thumb:
    """What a person thinks of one answer: 1 or -1, and why."""

    value: int
    reason: str = ""
    comment: str = ""


def add_thumb(store: Store, account: Account, message_id: str, thumb: Thumb, *, idempotency_key: str = "") -> str:
    """Append a thumb on one of the account's own answers and return the row's id.

    Raises:
        UnknownNameError: no such message.
        DataError: not an answer of the assistant, or a value other than 1 and -1.
    """
    if thumb.value not in {1, -1}:
        raise DataError(f"a thumb of {thumb.value}; wanted 1 or -1")
    if len(thumb.comment) > LONGEST_COMMENT:
        raise DataError(f"a comment of {len(thumb.comment)} characters; wanted at most {LONGEST_COMMENT}")
    table = schema.thumb
    with store.write() as connection:
        message = owned_message(connection, account, message_id)
        if message.role != "assistant":
            raise DataError(f"{message_id}: a message of the {message.role}; thumbs are for the assistant's answers")
        values = {"value": thumb.value, "reason": thumb.reason, "comment": thumb.comment}
        return _append(connection, table, table.c.message_id, message_id, account, values, idempotency_key)


def choose_draft(store: Store, account: Account, draft_pair_id: str, choice: int, *, idempotency_key: str = "") -> str:
    """Append which of two drafts the account prefers and return the row's id.

    Raises:
        UnknownNameError: no such pair of drafts.
        DataError: a choice other than 0 and 1.
    """
    if choice not in {0, 1}:
        raise DataError(f"draft {choice}; wanted 0 or 1")
    table, pair, message = schema.draft_choice, schema.draft_pair, schema.message
    with store.write() as connection:
        row = connection.execute(
            select(message.c.conversation_id)
            .join(pair, pair.c.parent_id == message.c.id)
            .where(pair.c.id == draft_pair_id)
        ).first()
        unknown = UnknownNameError(f"{draft_pair_id}: no such drafts")
        if row is None:
            raise unknown
        try:
            check_owner(connection, account, row.conversation_id)
        except UnknownNameError:
            raise unknown from None
        values = {"choice": choice}
        return _append(connection, table, table.c.draft_pair_id, draft_pair_id, account, values, idempotency_key)


def thumbs_of(store: Store, account: Account, message_ids: list[str]) -> dict[str, Thumb]:
    """Return the account's newest thumb on each of these messages that has one."""
    table = schema.thumb
    with store.read() as connection:
        rows = connection.execute(
            select(table)
            .where(table.c.account_id == account.id, table.c.message_id.in_(message_ids))
            .order_by(table.c.id)
        )
        return {row.message_id: Thumb(row.value, row.reason, row.comment) for row in rows}


def choices_of(store: Store, account: Account, draft_pair_ids: list[str]) -> dict[str, int]:
    """Return the account's newest choice in each of these pairs that has one."""
    table = schema.draft_choice
    with store.read() as connection:
        rows = connection.execute(
            select(table.c.draft_pair_id, table.c.choice)
            .where(table.c.account_id == account.id, table.c.draft_pair_id.in_(draft_pair_ids))
            .order_by(table.c.id)
        )
        return {row.draft_pair_id: row.choice for row in rows}


def _append(
    connection: Connection,
    table: Table,
    about: Any,
    about_id: str,
    account: Account,
    values: dict[str, Any],
    idempotency_key: str,
) -> str:
    """Append a row about something, unless this very request has come before."""
    mine = table.c.account_id == account.id
    if idempotency_key:
        known = connection.execute(
            select(table.c.id, about.label("about")).where(mine, table.c.idempotency_key == idempotency_key)
        ).first()
        if known is not None:
            if known.about != about_id:
                raise DataError(f"idempotency key {idempotency_key}: used before for something else; make a new one")
            return str(known.id)
    before = connection.execute(
        select(table.c.id).where(mine, about == about_id).order_by(table.c.id.desc()).limit(1)
    ).scalar()
    row_id = new_id()
    connection.execute(
        table.insert().values(
            id=row_id,
            account_id=account.id,
            idempotency_key=idempotency_key or row_id,
            supersedes_id=before,
            created=now_ms(),
            **{about.name: about_id},
            **values,
        )
    )
    return row_id
