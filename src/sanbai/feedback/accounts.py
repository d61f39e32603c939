"""Accounts and what lets them in: passwords, one-time sign-ins, browser sessions, API keys.

Secrets leave this file once, as the return value of the function that made them; the database holds scrypt of
passwords and SHA-256 of everything that is random (256 bits need no slow hash).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Literal, cast

from sqlalchemy import Connection, Row, exists, select

from sanbai.feedback import schema
from sanbai.feedback.identifiers import new_id, now_ms
from sanbai.feedback.store import Store
from sanbai.foundation.errors import UnknownNameError, UsageError

Role = Literal["user", "labeler", "admin"]
Source = Literal["person", "simulated", "model"]
Scope = Literal["v1", "api"]

ROLES: tuple[Role, ...] = ("user", "labeler", "admin")  # each may do what the ones before it may
SCOPES: tuple[Scope, ...] = ("v1", "api")
NAME = re.compile(r"[\w][\w.@+-]{0,63}")
#: Begins the names of models that rank, and of nobody else: no person's name has a colon.
MODEL_PREFIX = "model:"
SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1024
SESSION_MS = 14 * 24 * 3600 * 1000
TOKEN_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Account:
    """Who is asking."""

    id: str
    name: str
    role: Role
    source: Source

    def may_act_as(self, role: Role) -> bool:
        """Whether the account's role includes another: user < labeler < admin."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True)
class LoginSession:
    """A browser that has signed in."""

    id: str
    account: Account
    csrf: str


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it may be shown: never the key itself."""

    id: str
    account: Account
    prefix: str
    scopes: tuple[Scope, ...]


def add_account(store: Store, name: str, role: Role, *, source: Source = "person") -> Account:
    """Make an account without a password; it signs in by token or key.

    The name of a model that ranks is `model:` and its artifact's name.

    Raises:
        UsageError: the name is taken or is no name.
    """
    if not NAME.fullmatch(name.removeprefix(MODEL_PREFIX) if source == "model" else name):
        raise UsageError(f"{name!r}: not an account name; wanted 1 to 64 letters, digits or . @ + - _")
    if role not in ROLES:
        raise UsageError(f"{role!r}: not a role; wanted one of {', '.join(ROLES)}")
    account = Account(new_id(), name, role, source)
    with store.write() as connection:
        if connection.execute(select(schema.account.c.id).where(schema.account.c.name == name)).first():
            raise UsageError(f"{name}: an account of this name exists; choose another")
        connection.execute(
            schema.account.insert().values(id=account.id, name=name, role=role, source=source, created=now_ms())
        )
    return account


def list_accounts(store: Store) -> list[Account]:
    """Return all accounts, oldest first."""
    with store.read() as connection:
        return [_account(row) for row in connection.execute(select(schema.account).order_by(schema.account.c.id))]


def find_account(store: Store, name: str) -> Account:
    """Return the account of this name.

    Raises:
        UnknownNameError: there is none.
    """
    with store.read() as connection:
        row = connection.execute(select(schema.account).where(schema.account.c.name == name)).first()
    if row is None:
        raise UnknownNameError(f"{name}: no such account; see `sanbai account list`")
    return _account(row)


def set_password(store: Store, account: Account, password: str, *, keep: LoginSession | None = None) -> None:
    """Give an account a password and end its other sessions.

    Args:
        store: the store.
        account: whose.
        password: `SHORTEST_PASSWORD` to `LONGEST_PASSWORD` characters.
        keep: the session that asked for it, which goes on.

    Raises:
        UsageError: too short or too long.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise UsageError(f"a password of {len(password)} characters; wanted {SHORTEST_PASSWORD} to {LONGEST_PASSWORD}")
    salt = secrets.token_bytes(16)
    hashed = _scrypt(password, salt)
    session, ended = schema.login_session, schema.login_session_ended
    with store.write() as connection:
        connection.execute(
            schema.password.insert().values(
                id=new_id(), account_id=account.id, salt=salt, scrypt=hashed, created=now_ms()
            )
        )
        already = exists().where(ended.c.login_session_id == session.c.id)
        others = select(session.c.id).where(session.c.account_id == account.id, ~already)
        for (session_id,) in connection.execute(others).all():
            if keep is None or session_id != keep.id:
                connection.execute(ended.insert().values(login_session_id=session_id, created=now_ms()))


def has_password(store: Store, account: Account) -> bool:
    """Whether the account can sign in by name and password."""
    with store.read() as connection:
        return _newest_password(connection, account.id) is not None


def check_password(store: Store, name: str, password: str) -> Account | None:
    """Return the account if name and password fit; it takes equally long where the name does not exist."""
    with store.read() as connection:
        row = connection.execute(select(schema.account).where(schema.account.c.name == name)).first()
        known = _newest_password(connection, row.id) if row is not None else None
    salt, wanted = (known.salt, known.scrypt) if known is not None else (bytes(16), b"")
    fits = hmac.compare_digest(_scrypt(password[:LONGEST_PASSWORD], salt), wanted)
    return _account(row) if row is not None and fits else None


def make_sign_in_token(store: Store, account: Account) -> str:
    """Return a secret that signs in once, within a day."""
    token = secrets.token_urlsafe(32)
    with store.write() as connection:
        connection.execute(
            schema.sign_in_token.insert().values(
                id=new_id(),
                account_id=account.id,
                sha256=_sha256(token),
                expires=now_ms() + TOKEN_MS,
                created=now_ms(),
            )
        )
    return token


def use_sign_in_token(store: Store, token: str) -> Account | None:
    """Return the account that a token stands for, and make the token useless; None if it is unknown, old or used."""
    table, used = schema.sign_in_token, schema.sign_in_token_used
    with store.write() as connection:
        row = connection.execute(
            select(table.c.id.label("token_id"), schema.account)
            .join(schema.account, schema.account.c.id == table.c.account_id)
            .where(table.c.sha256 == _sha256(token), table.c.expires > now_ms())
            .where(~exists().where(used.c.sign_in_token_id == table.c.id))
        ).first()
        if row is None:
            return None
        connection.execute(used.insert().values(sign_in_token_id=row.token_id, created=now_ms()))
        return _account(row)


def open_session(store: Store, account: Account) -> tuple[LoginSession, str]:
    """Return a new session and its cookie."""
    cookie, session = secrets.token_urlsafe(32), LoginSession(new_id(), account, secrets.token_urlsafe(32))
    with store.write() as connection:
        connection.execute(
            schema.login_session.insert().values(
                id=session.id,
                account_id=account.id,
                sha256=_sha256(cookie),
                csrf=session.csrf,
                expires=now_ms() + SESSION_MS,
                created=now_ms(),
            )
        )
    return session, cookie


def find_session(store: Store, cookie: str) -> LoginSession | None:
    """Return the session of a cookie unless it is unknown, over or ended."""
    table, ended = schema.login_session, schema.login_session_ended
    with store.read() as connection:
        row = connection.execute(
            select(table.c.id.label("session_id"), table.c.csrf, schema.account)
            .join(schema.account, schema.account.c.id == table.c.account_id)
            .where(table.c.sha256 == _sha256(cookie), table.c.expires > now_ms())
            .where(~exists().where(ended.c.login_session_id == table.c.id))
        ).first()
    return LoginSession(row.session_id, _account(row), row.csrf) if row is not None else None


def end_session(store: Store, session: LoginSession) -> None:
    """Sign a browser out."""
    ended = schema.login_session_ended
    with store.write() as connection:
        if not connection.execute(select(ended).where(ended.c.login_session_id == session.id)).first():
            connection.execute(ended.insert().values(login_session_id=session.id, created=now_ms()))


def make_api_key(store: Store, account: Account, scopes: tuple[Scope, ...] = SCOPES) -> str:
    """Return a new API key: `sk-` and 32 random bytes. It cannot be shown again.

    Args:
        store: the store.
        account: whose rights it has.
        scopes: `v1` for the OpenAI-compatible routes, `api` for Sanbai's own.
    """
    if not scopes or not set(scopes) <= set(SCOPES):
        raise UsageError(f"{', '.join(scopes) or 'no scope'}: wanted some of {', '.join(SCOPES)}")
    key = "sk-" + secrets.token_urlsafe(32)
    with store.write() as connection:
        connection.execute(
            schema.api_key.insert().values(
                id=new_id(),
                account_id=account.id,
                prefix=key[:8],
                sha256=_sha256(key),
                scopes=list(scopes),
                created=now_ms(),
            )
        )
    return key


def find_api_key(store: Store, key: str) -> ApiKey | None:
    """Return what is known of a key unless it is unknown or revoked."""
    return next(iter(_api_keys(store, schema.api_key.c.sha256 == _sha256(key))), None)


def list_api_keys(store: Store, account: Account) -> list[ApiKey]:
    """Return an account's keys that still work, oldest first."""
    return _api_keys(store, schema.api_key.c.account_id == account.id)


def revoke_api_key(store: Store, key: ApiKey) -> None:
    """Make a key useless, at once."""
    revoked = schema.api_key_revoked
    with store.write() as connection:
        if not connection.execute(select(revoked).where(revoked.c.api_key_id == key.id)).first():
            connection.execute(revoked.insert().values(api_key_id=key.id, created=now_ms()))


def _api_keys(store: Store, condition: object) -> list[ApiKey]:
    table, revoked = schema.api_key, schema.api_key_revoked
    with store.read() as connection:
        rows = connection.execute(
            select(table.c.id.label("key_id"), table.c.prefix, table.c.scopes, schema.account)
            .join(schema.account, schema.account.c.id == table.c.account_id)
            .where(condition, ~exists().where(revoked.c.api_key_id == table.c.id))  # type: ignore[arg-type]
            .order_by(table.c.id)
        ).all()
    return [ApiKey(row.key_id, _account(row), row.prefix, tuple(row.scopes)) for row in rows]


def _account(row: Row[tuple[object, ...]]) -> Account:
    return Account(row.id, row.name, cast("Role", row.role), cast("Source", row.source))


def _newest_password(connection: Connection, account_id: str) -> Row[tuple[object, ...]] | None:
    table = schema.password
    newest = select(table).where(table.c.account_id == account_id).order_by(table.c.id.desc()).limit(1)
    return cast("Row[tuple[object, ...]] | None", connection.execute(newest).first())


def _scrypt(password: str, salt: bytes) -> bytes:
    """RFC 7914 with 32 MiB and about a tenth of a second."""
    return hashlib.scrypt(password.encode(), salt=salt, n=2**15, r=8, p=1, maxmem=64 * 2**20, dklen=32)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
