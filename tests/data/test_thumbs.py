from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sanbai.data.thumbs import ThumbedAnswer, read_thumbs
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import canonical_json

ROW: dict[str, Any] = {
    "id": "1",
    "messages": [{"role": "user", "content": "Who bakes?"}],
    "response": "Anna.",
    "value": -1,
    "finished": True,
    "labeler": "ada",
}


def test_a_thumb_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.jsonl"
    path.write_text(canonical_json(ROW) + "\n")
    (thumb,) = read_thumbs(path)
    assert thumb == ThumbedAnswer("1", (ROW["messages"][0],), "Anna.", -1, finished=True, labeler="ada")
    assert thumb.to_row() == ROW


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"value": 0}, "field 'value': found 0, wanted 1 or -1"),
        ({"value": "up"}, "field 'value': found text, wanted a whole number"),
        ({"finished": "yes"}, "field 'finished': found 'yes', wanted true or false"),
        ({"response": None}, "field 'response': found null, wanted text"),
        ({"messages": []}, "field 'messages': found an empty list"),
    ],
)
def test_a_row_that_is_no_thumb_is_one_line_with_its_place(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "thumbs.jsonl"
    path.write_text(canonical_json(ROW | changes) + "\n")
    with pytest.raises(DataError) as raised:
        list(read_thumbs(path))
    assert str(raised.value).startswith(f"{path}:1: {complaint}")
