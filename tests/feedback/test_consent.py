from __future__ import annotations

import pytest

from sanbai.feedback import consent
from sanbai.feedback.accounts import Account
from sanbai.feedback.consent import consenting_accounts, find_consent, set_consent
from sanbai.feedback.store import Store


def givers(store: Store) -> set[str]:
    with store.read() as connection:
        return consenting_accounts(connection)


def test_silence_is_no_consent_and_the_newest_word_counts(store: Store, anna: Account, bert: Account) -> None:
    assert find_consent(store, anna) is None
    assert givers(store) == set()
    set_consent(store, anna, granted=True)
    set_consent(store, bert, granted=False)
    assert (find_consent(store, anna), find_consent(store, bert)) == (True, False)
    assert givers(store) == {anna.id}
    set_consent(store, anna, granted=False)
    set_consent(store, bert, granted=True)
    assert givers(store) == {bert.id}


def test_new_words_need_a_new_consent(store: Store, anna: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    set_consent(store, anna, granted=True)
    monkeypatch.setattr(consent, "CONSENT_VERSION", 2)
    assert find_consent(store, anna) is None
    assert givers(store) == set()
