from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

from sanbai.data.documents import Document, DocumentSource, read_documents
from sanbai.data.records import write_records
from sanbai.foundation.errors import DataError


def read(folder: Path, path: str, **options: object) -> list[Document]:
    return list(read_documents(folder, [DocumentSource.model_validate({"path": path, **options})]))


def test_written_documents_read_back_the_same(tmp_path: Path) -> None:
    documents = [Document("a", "one\ntwo", "letters", "CC0", "en"), Document("b", "村里", "diaries", "CC0", "zh")]
    assert write_records(tmp_path / "d.jsonl.gz", documents) == 2
    assert read(tmp_path, "d.jsonl.gz") == documents


def test_packed_files_of_equal_documents_are_equal(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_records(tmp_path / name, [Document("a", "text")])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_fields_of_other_names_are_mapped(tmp_path: Path) -> None:
    row = {"key": 7, "title": "Bread", "body": "Bake it.", "noise": 1}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n\n")
    [document] = read(tmp_path, "x.jsonl", text_fields=("title", "body"), id_field="key", licence="CC0", language="en")
    assert document == Document("7", "Bread\n\nBake it.", "x.jsonl", "CC0", "en")


def test_a_document_without_a_name_is_named_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('\n{"text":"a"}\n')
    assert read(tmp_path, "x.jsonl")[0].id == "x.jsonl:2"


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("file", [("t.txt:1", "one\ntwo\n\nthree")]),
        ("paragraph", [("t.txt:1", "one\ntwo"), ("t.txt:4", "three")]),
        ("line", [("t.txt:1", "one"), ("t.txt:2", "two"), ("t.txt:4", "three")]),
    ],
)
def test_a_text_file_is_cut_into_the_unit_asked_for(tmp_path: Path, unit: str, expected: list[tuple[str, str]]) -> None:
    (tmp_path / "t.txt").write_text("one\ntwo\n\nthree\n")
    assert [(document.id, document.text) for document in read(tmp_path, "t.txt", text_unit=unit)] == expected


def test_a_glob_reads_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(name)
    assert [document.text for document in read(tmp_path, "*.txt")] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"txt": "a"}', "no field 'text'; did you mean txt?"),
        ('{"body": "a"}', "no field 'text'; found body"),
        ('{"text": 3}', "field 'text': found a number, wanted text"),
        ('{"text": "a", "id": []}', "field 'id': found a list, wanted a text or a whole number that names the row"),
        ('{"text": "a", "licence": 3}', "field 'licence': found a number, wanted text"),
        ('{"text": "\\ud800"}', "field 'text': character 0 is half of a surrogate pair, wanted Unicode"),
        ('{"text": ', "not JSON"),
        ("[1]", "found list, wanted a JSON object a line"),
    ],
)
def test_a_wrong_row_is_one_line_with_file_and_number(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text('{"text":"fine"}\n' + line + "\n")
    with pytest.raises(DataError) as error:
        read(tmp_path, "x.jsonl")
    assert str(error.value).startswith(f"{tmp_path / 'x.jsonl'}:2: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_text_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"x\.txt:2: byte 3 of the line is not UTF-8"):
        read(tmp_path, "x.txt")


def test_a_truncated_archive_is_a_clear_error(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"text":"' + bytes(range(97, 123)) * 400 + b'"}\n')
    (tmp_path / "x.jsonl.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match="damaged gzip file"):
        read(tmp_path, "x.jsonl.gz")


def test_zstd_without_its_package_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "x.jsonl.zst").write_bytes(b"")
    with pytest.raises(DataError, match=r"pip install 'sanbai\[zstandard\]'"):
        read(tmp_path, "x.jsonl.zst")


@pytest.mark.parametrize("path", ["../x.jsonl", "/etc/hosts", "a/../../x.jsonl"])
def test_a_path_out_of_the_data_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="leads out of the data folder"):
        read(tmp_path, path)


def test_a_missing_file_and_an_unknown_kind_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path, "*.jsonl")
    (tmp_path / "x.pdf").write_text("")
    with pytest.raises(DataError, match=r"wanted \.jsonl or \.txt"):
        read(tmp_path, "x.pdf")
