from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sanbai.feedback import accounts
from sanbai.feedback.accounts import (
    Account,
    add_account,
    check_password,
    end_session,
    find_account,
    find_api_key,
    find_session,
    has_password,
    list_accounts,
    list_api_keys,
    make_api_key,
    make_sign_in_token,
    open_session,
    revoke_api_key,
    set_password,
    use_sign_in_token,
)
from sanbai.feedback.store import Store
from sanbai.foundation.errors import UnknownNameError, UsageError


def test_roles_include_the_ones_below() -> None:
    labeler = Account("1", "anna", "labeler", "person")
    assert [labeler.may_act_as(role) for role in ("user", "labeler", "admin")] == [True, True, False]


def test_a_name_is_given_once(store: Store, anna: Account) -> None:
    with pytest.raises(UsageError, match="anna: an account of this name exists"):
        add_account(store, "anna", "user")
    assert find_account(store, "anna") == anna
    assert list_accounts(store) == [anna]


@pytest.mark.parametrize("name", ["", " anna", "an na", "a" * 65, "../x", "anna\n", "<b>"])
def test_odd_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="not an account name"):
        add_account(store, name, "user")


def test_unknown_accounts_are_named(store: Store) -> None:
    with pytest.raises(UnknownNameError, match="zoe: no such account"):
        find_account(store, "zoe")


def test_the_newest_password_alone_signs_in(store: Store, anna: Account) -> None:
    assert not has_password(store, anna)
    assert check_password(store, "anna", "") is None
    set_password(store, anna, "first password")
    set_password(store, anna, "second password")
    assert check_password(store, "anna", "second password") == anna
    assert check_password(store, "anna", "first password") is None
    assert check_password(store, "nobody", "second password") is None


def test_short_passwords_are_refused(store: Store, anna: Account) -> None:
    with pytest.raises(UsageError, match="a password of 7 characters"):
        set_password(store, anna, "1234567")


def test_a_new_password_ends_the_other_sessions(store: Store, anna: Account) -> None:
    (here, here_cookie), (_, there_cookie) = open_session(store, anna), open_session(store, anna)
    set_password(store, anna, "new password", keep=here)
    assert find_session(store, here_cookie) == here
    assert find_session(store, there_cookie) is None


def test_a_one_time_sign_in_works_once_even_for_many_at_once(store: Store, anna: Account) -> None:
    token = make_sign_in_token(store, anna)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: use_sign_in_token(store, token), range(8)))
    assert [found for found in results if found] == [anna]
    assert use_sign_in_token(store, "no such token") is None


def test_a_one_time_sign_in_grows_old(store: Store, anna: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    token = make_sign_in_token(store, anna)
    _, cookie = open_session(store, anna)
    later = accounts.now_ms() + accounts.SESSION_MS + 1
    monkeypatch.setattr(accounts, "now_ms", lambda: later)
    assert use_sign_in_token(store, token) is None
    assert find_session(store, cookie) is None


def test_a_session_ends_when_signed_out(store: Store, anna: Account) -> None:
    session, cookie = open_session(store, anna)
    assert find_session(store, cookie) == session
    end_session(store, session)
    end_session(store, session)
    assert find_session(store, cookie) is None


def test_a_key_works_until_it_is_revoked(store: Store, anna: Account) -> None:
    key = make_api_key(store, anna, ("v1",))
    found = find_api_key(store, key)
    assert found is not None
    assert (found.account, found.scopes, found.prefix) == (anna, ("v1",), key[:8])
    assert key.startswith("sk-")
    assert len(key) == 3 + 43  # 32 bytes in base64 without padding
    revoke_api_key(store, found)
    assert find_api_key(store, key) is None
    assert list_api_keys(store, anna) == []


def test_no_secret_can_be_read_out_of_the_database(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'sanbai.db'}")
    store.create()
    anna = add_account(store, "anna", "user")
    set_password(store, anna, "correct horse battery")
    secrets = [make_api_key(store, anna), make_sign_in_token(store, anna), open_session(store, anna)[1]]
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    store.close()
    assert not any(secret.encode() in content for secret in [*secrets, "correct horse battery"])
