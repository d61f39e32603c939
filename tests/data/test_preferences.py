from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sanbai.data.preferences import PreferenceSource, read_preferences, read_transcript
from sanbai.data.rankings import Ranking
from sanbai.foundation.errors import DataError


def read(folder: Path, rows: list[dict[str, Any]], **options: Any) -> list[Ranking]:
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_preferences(folder, [PreferenceSource(path="x.jsonl", **options)]))


def test_the_chosen_answer_is_the_better_one(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": "good", "rejected": "bad"}, {"prompt": "q", "chosen": "same", "rejected": "same"}]
    [ranking] = read(tmp_path, rows, layout="chosen")
    better, worse = ranking.pairs()[0]
    assert (ranking.responses[better], ranking.responses[worse]) == ("good", "bad")
    assert ranking.messages == ({"role": "user", "content": "q"},)


@pytest.mark.parametrize(
    ("labels", "pairs"),
    [((1, 1, 2), [(0, 1)]), ((2, 2, 0), [(1, 0)]), ((0, 0, 1), []), ((1, 2, 0), []), ((1, 1, 1), [(0, 1)])],
)
def test_the_majority_of_the_labels_decides(
    tmp_path: Path, labels: tuple[int, int, int], pairs: list[tuple[int, int]]
) -> None:
    row = {"prompt": "q", "response1": "a", "response2": "b", "l1": labels[0], "l2": labels[1], "l3": labels[2]}
    [ranking] = read(tmp_path, [row], layout="label", label_fields=("l1", "l2", "l3"))
    assert ranking.pairs() == pairs


def test_a_label_out_of_its_values_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl:1: found label 3, wanted one of 1, 2, 0"):
        read(tmp_path, [{"prompt": "q", "response1": "a", "response2": "b", "label": 3}], layout="label")


def test_transcripts_that_differ_in_the_last_answer_are_a_pair(tmp_path: Path) -> None:
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: who bakes?\n\nit is late\n\nAssistant: "
    rows = [
        {"chosen": start + "Anna.", "rejected": start + "Go away."},
        {"chosen": start + "Anna.", "rejected": "\n\nHuman: other\n\nAssistant: x"},
    ]
    [ranking] = read(tmp_path, rows, layout="transcript", labeler="crowd")
    assert [turn["role"] for turn in ranking.messages] == ["user", "assistant", "user"]
    assert ranking.messages[-1]["content"] == "who bakes?\n\nit is late"
    assert ranking.responses == ("Anna.", "Go away.")
    assert (ranking.buckets, ranking.labeler) == (((0,), (1,)), "crowd")


@pytest.mark.parametrize("text", ["", "hello", "\n\nHuman: hi", "x\n\nHuman: hi\n\nAssistant: a", "\n\nAssistant: a"])
def test_a_text_that_is_no_dialogue_is_an_error(text: str) -> None:
    with pytest.raises(DataError, match="x:1: wanted a dialogue"):
        read_transcript(text, where="x:1")
