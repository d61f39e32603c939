from __future__ import annotations

import json
from pathlib import Path

import pytest

from sanbai.data.labeled import LabeledSource, LabeledText, classes_of, read_labeled
from sanbai.foundation.errors import DataError


def test_texts_and_pairs_are_read_with_their_classes(tmp_path: Path) -> None:
    rows = [
        {"premise": "It rains.", "hypothesis": "It is wet.", "label": 1},
        {"premise": "a", "hypothesis": "b", "label": 0},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = LabeledSource(path="pairs.jsonl", text_fields=("premise", "hypothesis"))
    found = list(read_labeled(tmp_path, [source]))
    assert found[0] == LabeledText("pairs.jsonl:1", "It rains.", "1", "It is wet.")
    assert classes_of(found) == ("0", "1")
    assert LabeledText.from_row(found[1].to_row(), where="here") == found[1]
    single = list(read_labeled(tmp_path, [LabeledSource(path="pairs.jsonl", text_fields=("premise",))]))
    assert single[0].second == ""


def test_a_row_without_a_class_and_one_class_alone_are_said(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b"}\n')
    with pytest.raises(DataError, match=r"texts.jsonl:2: field 'label'"):
        list(read_labeled(tmp_path, [LabeledSource(path="texts.jsonl")]))
    with pytest.raises(DataError, match="1 class"):
        classes_of([LabeledText("1", "a", "x")])
