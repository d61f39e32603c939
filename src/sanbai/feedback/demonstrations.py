"""Demonstrations: answers that a labeler wrote, to be imitated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import func, select

from sanbai.feedback import schema
from sanbai.feedback.accounts import Account
from sanbai.feedback.identifiers import new_id, now_ms
from sanbai.feedback.store import Store
from sanbai.foundation.errors import DataError


def add_demonstration(
    store: Store,
    account: Account,
    messages: Sequence[Mapping[str, str]],
    *,
    source: str = "person",
    idempotency_key: str = "",
) -> str:
    """Append a conversation whose last turn, the assistant's, the account wrote; returns the row's id.

    Raises:
        DataError: it does not end in an answer of the assistant to someone.
    """
    if len(messages) < 2 or messages[-1]["role"] != "assistant" or messages[-2]["role"] == "assistant":
        raise DataError("a demonstration ends in one answer of the assistant to someone; found something else")
    if not messages[-1]["content"].strip():
        raise DataError("a demonstration with an empty answer; write one")
    table = schema.demonstration
    with store.write() as connection:
        if idempotency_key:
            known = connection.execute(
                select(table.c.id).where(table.c.account_id == account.id, table.c.idempotency_key == idempotency_key)
            ).scalar()
            if known is not None:
                return str(known)
        row_id = new_id()
        connection.execute(
            table.insert().values(
                id=row_id,
                account_id=account.id,
                messages=[{"role": one["role"], "content": one["content"]} for one in messages],
                source=source,
                round=connection.execute(select(func.max(schema.round_.c.n))).scalar() or 0,
                idempotency_key=idempotency_key or row_id,
                created=now_ms(),
            )
        )
    return row_id
