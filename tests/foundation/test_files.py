"""Atomic files and JSON Lines."""

import errno
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanbai.foundation.errors import DataError, ResourceError
from sanbai.foundation.files import (
    JsonlWriter,
    canonical_json,
    explain_disk_errors,
    read_json,
    read_jsonl,
    write_atomic,
    write_json_atomic,
)


def test_an_interrupted_write_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    write_json_atomic(path, {"step": 1})

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        write_json_atomic(path, {"step": 2})
    assert read_json(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ResourceError, match=r"model\.bin: no space left on the disk; free some and run"):
        write_atomic(tmp_path / "model.bin", b"x")
    assert list(tmp_path.iterdir()) == []


def test_other_system_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), explain_disk_errors(tmp_path):
        raise IsADirectoryError


@given(st.recursive(st.none() | st.integers() | st.text(), lambda child: st.dictionaries(st.text(), child)))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: object) -> None:
    turned = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert canonical_json(value) == canonical_json(turned)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_json_lines_come_back_and_equal_rows_give_equal_bytes(tmp_path: Path, name: str) -> None:
    rows = [{"id": "a", "text": "三百 \u2028 line"}, {"text": "", "id": "b"}]
    contents = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        with JsonlWriter(folder / name) as writer:
            for row in rows:
                writer.write(row)
        contents.append((folder / name).read_bytes())
        assert list(read_jsonl(folder / name)) == rows
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"a":1}\n{"a":', r"rows\.jsonl:2: not JSON"),
        (b'{"a":1}\n\n[1]\n', r"rows\.jsonl:3: found list, wanted a JSON object a line"),
        (b'{"a":"\xe9"}\n', r"rows\.jsonl:1: byte 6 of the line is not UTF-8"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        list(read_jsonl(path))


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a":1}\n' * 1000)[:-9])
    with pytest.raises(DataError, match="damaged gzip file"):
        list(read_jsonl(path))
