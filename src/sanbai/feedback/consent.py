"""Consent: whether what an account says may train models. Only a grant is consent; the newest decision counts."""

from __future__ import annotations

from sqlalchemy import Connection, and_, func, select

from sanbai.feedback import schema
from sanbai.feedback.accounts import Account
from sanbai.feedback.identifiers import new_id, now_ms
from sanbai.feedback.store import Store

#: Raise it when the words that people agree to change; a grant of an older version does not count.
CONSENT_VERSION = 1


def set_consent(store: Store, account: Account, *, granted: bool) -> None:
    """Write down what an account decided."""
    with store.write() as connection:
        connection.execute(
            schema.consent.insert().values(
                id=new_id(), account_id=account.id, granted=granted, version=CONSENT_VERSION, created=now_ms()
            )
        )


def find_consent(store: Store, account: Account) -> bool | None:
    """Return the account's newest decision on the present words; None where it has not been asked."""
    table = schema.consent
    with store.read() as connection:
        row = connection.execute(
            select(table.c.granted)
            .where(table.c.account_id == account.id, table.c.version == CONSENT_VERSION)
            .order_by(table.c.id.desc())
            .limit(1)
        ).first()
    return None if row is None else bool(row.granted)


def consenting_accounts(connection: Connection) -> set[str]:
    """Return the ids of the accounts whose newest decision on the present words is a grant."""
    table = schema.consent
    newest = (
        select(table.c.account_id, func.max(table.c.id).label("id"))
        .where(table.c.version == CONSENT_VERSION)
        .group_by(table.c.account_id)
        .subquery()
    )
    rows = connection.execute(
        select(table.c.account_id).join(newest, and_(table.c.id == newest.c.id)).where(table.c.granted)
    )
    return {row.account_id for row in rows}
