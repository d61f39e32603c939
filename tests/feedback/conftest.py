from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import MetaData

from sanbai.feedback.accounts import Account, add_account
from sanbai.feedback.store import Store

POSTGRESQL = os.environ.get("SANBAI_TEST_POSTGRESQL", "")


def empty_database(url: str) -> None:
    """Drop every table of a test database."""
    store = Store(url)
    tables = MetaData()
    tables.reflect(store.engine)
    tables.drop_all(store.engine)
    store.close()


@pytest.fixture(params=["sqlite", *(["postgresql"] if POSTGRESQL else [])])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = POSTGRESQL if request.param == "postgresql" else f"sqlite:///{tmp_path / 'sanbai.db'}"
    if request.param == "postgresql":
        empty_database(url)
    made = Store(url)
    made.create()
    yield made
    made.close()


@pytest.fixture
def anna(store: Store) -> Account:
    return add_account(store, "anna", "labeler")


@pytest.fixture
def bert(store: Store) -> Account:
    return add_account(store, "bert", "labeler")
