"""The table that a run ends in: a row a model, from base to practised; the same cells for terminal and page.

The functions read `evaluation.json`, so that a table can be drawn again long after the models are gone.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from sanbai.evaluation.theme import model_label

HEADINGS = ("Helpful", "Honest", "Harmless", "Gold utility", "Bits per byte", "Win rate", "Time")


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as text.

    Attributes:
        figure: the number, or a dash where there is none.
        interval: its 95 % interval, or nothing.
    """

    figure: str
    interval: str = ""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model's row, a cell for each of `HEADINGS`."""

    name: str
    label: str
    cells: Sequence[Cell]


def model_rows(evaluation: Mapping[str, Any], *, seconds: Mapping[str, float] | None = None) -> list[ModelRow]:
    """Return the rows of the table.

    Args:
        evaluation: the content of `evaluation.json`.
        seconds: model -> how long its making took; a dash where not given.
    """
    times = seconds or {}
    rows: list[ModelRow] = []
    for name, scores in evaluation["evaluation"].items():
        won = evaluation["win_rate"].get(f"{name}_vs_{rows[-1].name}") if rows else None
        cells = [
            *(share_cell(scores[axis]) for axis in ("helpful", "honest", "harmless")),
            number_cell(scores["gold_utility"], digits=2),
            number_cell(scores["bits_per_byte"], digits=3),
            share_cell(won) if won else Cell("–"),
            Cell(duration(times[name])) if name in times else Cell("–"),
        ]
        rows.append(ModelRow(name=name, label=model_label(name), cells=cells))
    return rows


def terminal_table(evaluation: Mapping[str, Any], *, seconds: Mapping[str, float] | None = None) -> Table:
    """Return the table for a terminal of 80 columns, intervals beneath their figures."""
    times = {name: f"{int(spent) // 60}:{int(spent) % 60:02d}" for name, spent in (seconds or {}).items()}
    asked = next(iter(evaluation["evaluation"].values()))["helpful"]["n"]
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=f"{asked} held-out prompts, 95 % intervals; win rate against the row above, ties half",
        caption_justify="left",
        pad_edge=False,
        padding=0,
    )
    table.add_column("", style="bold", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for row in model_rows(evaluation):
        table.add_row(row.label, *(_stacked(cell) for cell in row.cells[:-1]), times.get(row.name, "–"))
    return table


def share_cell(estimate: Mapping[str, float]) -> Cell:
    """Return a share in percent with its interval."""
    interval = f"{100 * estimate['low']:.1f}–{100 * estimate['high']:.1f}"
    return Cell(f"{100 * estimate['mean']:.1f} %", interval)


def number_cell(estimate: Mapping[str, float], *, digits: int) -> Cell:
    """Return a number with its interval."""
    interval = f"{estimate['low']:.{digits}f}–{estimate['high']:.{digits}f}"
    return Cell(f"{estimate['mean']:.{digits}f}", interval)


def prose(text: str) -> str:
    """Escape for a page, and keep a number and its percent sign on one line."""
    return html.escape(text).replace(" %", "\u00a0%")


def table_cell(cell: Cell) -> str:
    """Return a figure with its interval beneath, for a page."""
    interval = f'<span class="interval">{html.escape(cell.interval)}</span>' if cell.interval else ""
    return f"<td>{html.escape(cell.figure)}{interval}</td>"


def duration(seconds: float) -> str:
    """Return seconds as people say them: 48 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _stacked(cell: Cell) -> str:
    return f"{cell.figure}\n[dim]{cell.interval}[/dim]" if cell.interval else cell.figure
