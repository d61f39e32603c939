from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanbai.data.rankings import Ranking, Rating, read_rankings
from sanbai.data.records import write_records
from sanbai.foundation.errors import DataError

ROW: dict[str, Any] = {
    "id": "task-1",
    "messages": [{"role": "user", "content": "Who bakes?"}],
    "responses": ["Anna.", "Bert.", "Nobody.", "Anna does."],
    "buckets": [[3], [0], [2, 1]],
    "labeler": "l7",
    "ratings": [{"likert": 6, "flags": []}, {"likert": 1, "flags": ["false"]}, {"likert": 2}, {"likert": 7}],
    "kind": "closed question",
    "round": 1,
}


def test_written_rankings_read_back_the_same(tmp_path: Path) -> None:
    ranking = Ranking.from_row(ROW, where="here")
    assert ranking.ratings[1] == Rating(1, ("false",))
    write_records(tmp_path / "r.jsonl", [ranking, ranking])
    assert list(read_rankings(tmp_path / "r.jsonl")) == [ranking, ranking]
    assert list(read_rankings([tmp_path / "r.jsonl"])) == [ranking, ranking]


def test_every_strict_preference_is_a_pair_and_ties_are_none() -> None:
    assert set(Ranking.from_row(ROW, where="here").pairs()) == {(3, 0), (3, 2), (3, 1), (0, 2), (0, 1)}


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9))
def test_pairs_are_those_of_the_answers_places(places: list[int]) -> None:
    levels = sorted(set(places))
    buckets = [[answer for answer, place in enumerate(places) if place == level] for level in levels]
    ranking = Ranking.from_row({**ROW, "responses": ["x"] * len(places), "buckets": buckets, "ratings": []}, where="x")
    expected = [(a, b) for a in range(len(places)) for b in range(len(places)) if places[a] < places[b]]
    assert sorted(ranking.pairs()) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"buckets": [[3], [0], [2, 3]]}, "buckets: answer 3 is named twice, wanted every answer exactly once"),
        ({"buckets": [[3], [0]]}, "buckets: answer 1, 2 is missing, wanted every answer exactly once"),
        ({"buckets": [[3], [], [0, 1, 2]]}, "buckets: found [], wanted lists of answer numbers"),
        ({"buckets": [[4], [0, 1, 2, 3]]}, "buckets: found answer 4, wanted 0 to 3"),
        ({"buckets": [[True], [0, 2, 3]]}, "buckets: found answer True, wanted 0 to 3"),
        ({"buckets": 3}, "field 'buckets': found a number, wanted a list"),
        ({"responses": ["only"]}, "found 1 response, wanted at least 2 to rank"),
        ({"responses": ["a", 2]}, "responses[1]: found int, wanted text"),
        ({"ratings": [{"likert": 3}]}, "ratings: found 1, wanted none or one for each of 4 answers"),
        ({"ratings": [{"likert": 8}] * 4}, "ratings[0]: found likert 8, wanted a whole number from 1 to 7"),
        ({"ratings": [{"likert": 3.0}] * 4}, "ratings[0]: found likert 3.0"),
        ({"ratings": [{"likert": 3, "flags": "rude"}] * 4}, "ratings[0]: found flags 'rude', wanted a list of texts"),
        ({"round": "one"}, "field 'round': found text, wanted a whole number"),
        ({"labeler": None}, "field 'labeler': found null, wanted text"),
    ],
)
def test_a_wrong_ranking_is_one_line_with_file_and_number(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, **change}) + "\n")
    with pytest.raises(DataError) as error:
        list(read_rankings(path))
    assert str(error.value).startswith(f"{path}:2: {message}")
