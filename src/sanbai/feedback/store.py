"""The store: one database, SQLite beside the artifacts or PostgreSQL by URL.

**The promise.** What `write` has left is committed: on SQLite in WAL mode with `synchronous=FULL`, so forced to disk;
on PostgreSQL with the server's default `synchronous_commit=on`. There is one writer at a time on either: `BEGIN
IMMEDIATE` with a lock of this process before it (so that threads queue instead of polling), or an advisory lock.
Counting and then inserting is therefore safe without further thought.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from sanbai.feedback.identifiers import now_ms
from sanbai.feedback.schema import SCHEMA_VERSION, metadata, schema_version
from sanbai.foundation.errors import StoreError

BUSY_TIMEOUT_MS = 10_000
#: Any fixed number, the same in every process: it names Sanbai's one writer to PostgreSQL.
WRITER_LOCK = 0x5A17BA1


class Store:
    """A live connection pool; open one a process and share it between threads."""

    def __init__(self, url: str) -> None:
        """Connect to a database.

        Args:
            url: SQLAlchemy URL, `sqlite:///FILE` or `postgresql+psycopg://...`.

        Raises:
            StoreError: no such kind of database.
        """
        try:
            self.url = make_url(url)
            self.engine: Engine = sqlalchemy.create_engine(
                self.url, pool_size=16, max_overflow=48, hide_parameters=True
            )
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise StoreError(
                f"{url.rsplit('@', maxsplit=1)[-1]}: not a database that can be opened ({error}); wanted "
                "sqlite:///FILE, or postgresql+psycopg://... with pip install 'sanbai[postgresql]'"
            ) from None
        self._is_sqlite = self.url.get_backend_name() == "sqlite"
        self._writer = threading.Lock()
        if self._is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @property
    def place(self) -> str:
        """The database's address without a password, for messages."""
        return self.url.database or "" if self._is_sqlite else self.url.render_as_string(hide_password=True)

    def create(self) -> None:
        """Make the tables if the database is empty; accept one of this version.

        Raises:
            StoreError: the database cannot be opened, belongs to another program, or has another schema version.
        """
        try:
            with self.write() as connection:
                found = set(inspect(connection).get_table_names())
                if not found:
                    metadata.create_all(connection)
                    connection.execute(schema_version.insert().values(version=SCHEMA_VERSION, created=now_ms()))
                    return
                if schema_version.name not in found:
                    raise StoreError(f"{self.place}: holds other tables, but not Sanbai's; name another database")
                version = connection.execute(select(schema_version.c.version)).scalar_one()
        except DBAPIError as error:
            raise StoreError(f"{self.place}: cannot be opened as a database: {error.orig}") from None
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.place}: schema version {version}, this program knows {SCHEMA_VERSION}; "
                f"use the version of Sanbai that made it"
            )

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads; it sees one consistent state."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Open the one writing transaction; leaving the block commits to disk, an exception undoes all of it."""
        if self._is_sqlite:
            with self._writer, self.engine.connect() as connection:
                connection.execution_options(sanbai_writes=True)
                with connection.begin():
                    yield connection
        else:
            with self.engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITER_LOCK})
                yield connection

    def forget_log(self) -> None:
        """Empty SQLite's write-ahead log, so that erased text is in no file; on PostgreSQL its own vacuum does."""
        if not self._is_sqlite:
            return
        with self._writer, self.engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def _prepare_sqlite(connection: Any, _: object) -> None:
    """Set what holds for every pooled connection; transactions are begun by `_begin_sqlite`, not by the driver."""
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("sanbai_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
