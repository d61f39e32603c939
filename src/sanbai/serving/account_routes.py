"""The administrator's routes: accounts and their keys."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sanbai.feedback import accounts
from sanbai.feedback.accounts import Account, Role, Scope
from sanbai.serving.problems import not_found
from sanbai.serving.routes import Body, Call, PlainText, Row


class NewAccount(Body):
    """An account to be made."""

    name: PlainText = Field(max_length=200)
    role: Role


class NewKey(Body):
    """What a key may be used for."""

    scopes: list[Scope] = Field(default=list(accounts.SCOPES), min_length=1, max_length=len(accounts.SCOPES))


def list_accounts(call: Call) -> dict[str, Any]:
    """Return all accounts with the beginnings of their keys."""
    store = call.house.store
    return {
        "accounts": [
            _describe(account) | {"keys": [key.prefix for key in accounts.list_api_keys(store, account)]}
            for account in accounts.list_accounts(store)
        ]
    }


def add_account(call: Call) -> dict[str, Any]:
    """Make an account, and a one-time sign-in to hand to its person."""
    wanted, store = call.body(NewAccount), call.house.store
    account = accounts.add_account(store, wanted.name, wanted.role)
    return _describe(account) | {"sign_in": f"/sign-in?token={accounts.make_sign_in_token(store, account)}"}


def add_key(call: Call) -> dict[str, Any]:
    """Make a key; this response is the only place where it can be read."""
    store, name = call.house.store, str(call.request.path_params["name"])
    if not accounts.NAME.fullmatch(name):
        raise not_found("no such account")
    account = accounts.find_account(store, name)
    return {"key": accounts.make_api_key(store, account, tuple(dict.fromkeys(call.body(NewKey).scopes)))}


def _describe(account: Account) -> dict[str, Any]:
    return {"name": account.name, "role": account.role, "source": account.source}


ROWS = (
    Row("GET", "/api/accounts", "admin", list_accounts),
    Row("POST", "/api/accounts", "admin", add_account, NewAccount),
    Row("POST", "/api/accounts/{name}/keys", "admin", add_key, NewKey),
)
