from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event, select

from sanbai.feedback import schema
from sanbai.feedback.accounts import Account, add_account, end_session, open_session, set_password
from sanbai.feedback.conversations import add_message, delete_conversation, open_conversation
from sanbai.feedback.generations import Ending, Plan, append_piece, begin_generations, end_generation
from sanbai.feedback.reactions import Thumb, add_thumb
from sanbai.feedback.store import Store
from sanbai.foundation.errors import StoreError

WRITER = """
import sys
from sanbai.feedback.accounts import find_account
from sanbai.feedback.conversations import add_message, open_conversation
from sanbai.feedback.store import Store

store = Store(sys.argv[1])
owner = find_account(store, "anna")
place = open_conversation(store, owner)
for number in range(1_000_000):
    print(add_message(store, owner, place, content=f"message {number}").id, flush=True)
"""


def pragmas_of_all_connections(store: Store, number: int) -> list[tuple[str, int, int, int]]:
    """Hold `number` pooled connections at once and ask each how it is set."""
    barrier = threading.Barrier(number)

    def ask(_: int) -> tuple[str, int, int, int]:
        with store.engine.connect() as connection:
            barrier.wait(timeout=20)
            values = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
            ]
            return (str(values[0]), *map(int, values[1:]))  # type: ignore[arg-type, return-value]

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(ask, range(number)))


def test_every_pooled_connection_forces_commits_to_disk(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'sanbai.db'}")
    store.create()
    for _ in range(2):  # new connections, then the pool's used ones
        settings = pragmas_of_all_connections(store, 24)
        assert settings == [("wal", 2, 1, 1)] * 24  # synchronous 2 = FULL
    store.close()


@pytest.mark.parametrize("cycle", range(4))
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, cycle: int) -> None:
    url = f"sqlite:///{tmp_path / 'sanbai.db'}"
    store = Store(url)
    store.create()
    anna = add_account(store, "anna", "user")
    store.close()
    with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(0.05 + 0.11 * cycle)
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read()
    lines = (first + rest).splitlines(keepends=True)
    acknowledged = {line.strip() for line in lines if line.endswith("\n")}

    reopened = Store(url)
    reopened.create()
    with reopened.read() as connection:
        stored = list(connection.execute(select(schema.message.c.id, schema.message.c.content)))
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert acknowledged
    assert acknowledged <= {row.id for row in stored}
    assert len(stored) - len(acknowledged) <= 1  # committed, killed before it was said
    assert sorted(int(row.content.split()[1]) for row in stored) == list(range(len(stored)))
    open_conversation(reopened, anna)
    reopened.close()


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.write() as connection:  # noqa: PT012 - the block is what is tested
        connection.execute(schema.account.insert().values(id="x", name="eve", role="user", source="person", created=0))
        raise RuntimeError
    add_account(store, "eve", "user")


def test_another_programs_database_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    with pytest.raises(StoreError, match=re.escape(f"{path}: holds other tables")):
        Store(f"sqlite:///{path}").create()


def test_another_schema_version_is_refused_in_one_line(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'sanbai.db'}")
    store.create()
    with store.write() as connection:
        connection.execute(schema.schema_version.update().values(version=999))
    with pytest.raises(StoreError, match="schema version 999, this program knows"):
        store.create()
    store.close()


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "sanbai.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreError, match="cannot be opened as a database"):
        Store(f"sqlite:///{path}").create()


def test_a_database_of_no_known_kind_is_refused_in_one_line() -> None:
    with pytest.raises(StoreError, match="not a database that can be opened"):
        Store("excel:///table.xls")


def test_creating_twice_changes_nothing(store: Store, anna: Account) -> None:
    store.create()
    with store.read() as connection:
        assert connection.execute(select(schema.account.c.name)).scalars().all() == ["anna"]


def test_rows_are_only_appended_but_for_erasure_and_compaction(store: Store, anna: Account) -> None:
    statements: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    event.listen(store.engine, "before_cursor_execute", note)
    set_password(store, anna, "long enough")
    session, _ = open_session(store, anna)
    end_session(store, session)
    place = open_conversation(store, anna)
    asked = add_message(store, anna, place, content="Who bakes?")
    (made,) = begin_generations(store, asked, [Plan("base", {}, 1, 5)])
    append_piece(store, made, 0, "An")
    end_generation(store, made, "Anna", Ending("done", "stop", 2, 0.1))
    add_thumb(store, anna, made.message_id, Thumb(1))
    add_thumb(store, anna, made.message_id, Thumb(-1))
    changed = {" ".join(one.split()[:3]) for one in statements if one.split()[0] in {"UPDATE", "DELETE"}}
    assert changed == {"DELETE FROM generation_piece"}
    delete_conversation(store, anna, place)
    event.remove(store.engine, "before_cursor_execute", note)


def test_erased_text_is_in_no_file(tmp_path: Path) -> None:
    canary = "canary-4d1f9a"
    store = Store(f"sqlite:///{tmp_path / 'sanbai.db'}")
    store.create()
    anna = add_account(store, "anna", "user")
    place = open_conversation(store, anna)
    asked = add_message(store, anna, place, content=f"My secret is {canary}.")
    (made,) = begin_generations(store, asked, [Plan("base", {}, 1, 5)])
    append_piece(store, made, 0, canary)
    end_generation(store, made, f"{canary} it is", Ending("done", "stop", 2, 0.1))
    add_thumb(store, anna, made.message_id, Thumb(-1, "private", f"you said {canary}"))
    assert any(canary.encode() in path.read_bytes() for path in tmp_path.iterdir())
    delete_conversation(store, anna, place)
    assert not any(canary.encode() in path.read_bytes() for path in tmp_path.iterdir())
    store.close()
