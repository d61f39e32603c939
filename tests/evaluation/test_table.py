from __future__ import annotations

import io

import pytest
from rich.console import Console
from tests.evaluation.record import EVALUATION

from sanbai.evaluation.table import duration, model_rows, terminal_table


def test_rows_stand_in_the_order_of_making_with_a_win_rate_against_the_one_before() -> None:
    rows = model_rows(EVALUATION, seconds={"ppo": 233.0})
    assert [row.label for row in rows] == ["Base", "Supervised", "Practised"]
    assert [row.cells[5].figure for row in rows] == ["–", "81.0 %", "59.6 %"]
    assert [row.cells[6].figure for row in rows] == ["–", "–", "3 min 53 s"]
    assert rows[2].cells[4].figure == "0.851"
    assert rows[2].cells[4].interval == "0.839–0.863"


def test_a_terminal_of_80_columns_shows_every_figure_and_interval_whole() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(terminal_table(EVALUATION, seconds={"ppo": 233.4}))
    for expected in ("Practised", "68.0 %", "65.0–71.0", "56.8–62.4", "0.839–0.863", "3:53", "600 held-out prompts"):
        assert expected in out.getvalue()
    assert "…" not in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7_800, "2 h 10 min")],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said
