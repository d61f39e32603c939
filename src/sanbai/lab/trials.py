"""Trials of a phenomenon: each seed's numbers in one file, the whole as JSON and as a plot.

A seed that is measured is not measured again; what a stopped run had trained is found in the workspace. So the same
command continues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, pstdev
from typing import Any, Generic, TypeVar

from sanbai.evaluation.plots import render_svg
from sanbai.evaluation.theme import GREY, INK, MUTED, ORANGE
from sanbai.foundation.files import read_json, write_atomic, write_json_atomic
from sanbai.foundation.stage import Job
from sanbai.lab.bench import FULL, Bench, Size

#: What a seed is measured on: a `Bench`, or `Assistants`.
Subject = TypeVar("Subject")
#: What figures are measured in where their phenomenon says nothing else.
SHARE = "share"


@dataclass(frozen=True)
class Phenomenon(Generic[Subject]):
    """A published effect with its control.

    Attributes:
        name: of the command and the files.
        claim: what is published, one sentence with its source.
        measure: trains and measures one seed, figure -> value; it may return more figures than are named here.
        effect: the figures that should show the effect, high ones where they are shares.
        control: the figures that should not.
        units: of figures that are no shares in [0, 1]; those of one unit share an axis.
        histogram: beginning of the names of figures that are counted over all trials, and their unit.
        lines: curves to draw, unit of a panel -> name of a line -> beginnings of the names of its figures along and up;
            what follows the beginnings names the point.
        along: unit of the figures along.
        size: of a bench's text and models where nothing else is asked for.
        num_seeds: trials that are reported.
    """

    name: str
    claim: str
    measure: Callable[[Subject], Mapping[str, float]]
    effect: tuple[str, ...]
    control: tuple[str, ...]
    units: Mapping[str, str] = field(default_factory=dict)
    histogram: tuple[str, str] | None = None
    lines: Mapping[str, Mapping[str, tuple[str, str]]] = field(default_factory=dict)
    along: str = ""
    size: Size = FULL
    num_seeds: int = 3


def run_trials(
    job: Job,
    phenomenon: Phenomenon[Bench],
    *,
    seeds: Sequence[int] | None = None,
    size: Size | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure every seed of a phenomenon on benches of one size; see `measure_seeds`.

    Args:
        job: workspace, progress, stop signal.
        phenomenon: what is tried.
        seeds: one trial each.
        size: of text and models; by default the phenomenon's.
        **settings: other fields of the bench.
    """
    chosen = size or phenomenon.size

    def open_bench(seed: int) -> Bench:
        return Bench(job, seed, chosen, **settings)

    return measure_seeds(job, phenomenon, open_bench, setting=asdict(chosen), seeds=seeds)


def measure_seeds(
    job: Job,
    phenomenon: Phenomenon[Subject],
    open_subject: Callable[[int], Subject],
    *,
    setting: Mapping[str, Any],
    seeds: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Measure every seed, write `lab/<name>.json` and `lab/<name>.svg` into the workspace, and return the record.

    The record has each trial's figures, and the mean and the spread (standard deviation) over trials of those named.

    Args:
        job: workspace, progress, stop signal.
        phenomenon: what is tried.
        open_subject: seed -> what is measured.
        setting: what the figures depend on beside the seed, JSON values; figures of another setting are measured anew.
        seeds: one trial each; by default 1, 2, ... as many as the phenomenon reports.

    Raises:
        Interrupted: asked to stop; the same call continues.
    """
    seeds = range(1, phenomenon.num_seeds + 1) if seeds is None else seeds
    folder = job.workspace.root / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    trials = {}
    for seed in seeds:
        path = folder / f"{phenomenon.name}-{seed}.json"
        known: dict[str, Any] = read_json(path) if path.exists() else {}
        if known.get("size") != setting:
            known = {"size": dict(setting), "figures": dict(phenomenon.measure(open_subject(seed)))}
            write_json_atomic(path, known)
        trials[seed] = known["figures"]
    figures = (*phenomenon.effect, *phenomenon.control)
    record = {
        "phenomenon": phenomenon.name,
        "claim": phenomenon.claim,
        "effect": list(phenomenon.effect),
        "control": list(phenomenon.control),
        "size": dict(setting),
        "trials": {str(seed): found for seed, found in trials.items()},
        "means": {name: fmean(found[name] for found in trials.values()) for name in figures},
        "spreads": {name: pstdev(found[name] for found in trials.values()) for name in figures},
    }
    write_json_atomic(folder / f"{phenomenon.name}.json", record)
    write_atomic(folder / f"{phenomenon.name}.svg", render_svg(plot(phenomenon, trials)))
    return record


def plot(phenomenon: Phenomenon[Any], trials: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """Return a Vega-Lite specification: a panel a unit, in it a row a figure, a dot a seed, a line at the mean."""
    units = dict.fromkeys(phenomenon.units.get(name, SHARE) for name in (*phenomenon.effect, *phenomenon.control))
    panels = [_dots(phenomenon, trials, unit) for unit in units]
    if phenomenon.histogram is not None:
        panels.append(_histogram(trials, *phenomenon.histogram))
    panels += [_curves(trials, lines, unit, phenomenon.along) for unit, lines in phenomenon.lines.items()]
    title = {"title": {"text": phenomenon.name.replace("_", " "), "color": INK}}
    if len(panels) == 1:
        return {**title, **panels[0]}
    scales = dict.fromkeys(("x", "y", "color") if phenomenon.lines else ("x", "y"), "independent")
    return {**title, "vconcat": panels, "resolve": {"scale": scales}}


def _dots(phenomenon: Phenomenon[Any], trials: Mapping[int, Mapping[str, float]], unit: str) -> dict[str, Any]:
    shown = [
        (name, kind)
        for kind, names in (("effect", phenomenon.effect), ("control", phenomenon.control))
        for name in names
        if phenomenon.units.get(name, SHARE) == unit
    ]
    values = [
        {"figure": name.replace("_", " "), "seed": seed, "value": found[name], "kind": kind}
        for name, kind in shown
        for seed, found in trials.items()
    ]
    order = [name.replace("_", " ") for name, _ in shown]
    y = {"field": "figure", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 320}}
    colour = {
        "field": "kind",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ["effect", "control"], "range": [ORANGE, GREY]},
    }
    scale = {"domain": [0, 1]} if unit == SHARE else {"zero": False, "nice": True}
    x = {"field": "value", "type": "quantitative", "scale": scale, "title": unit}
    return {
        "width": 420,
        "height": {"step": 28},
        "data": {"values": values},
        "layer": [
            {
                "mark": {"type": "tick", "color": MUTED, "thickness": 2},
                "encoding": {"y": y, "x": {**x, "aggregate": "mean"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 0.9},
                "encoding": {"y": y, "x": x, "color": colour},
            },
        ],
    }


def _histogram(trials: Mapping[int, Mapping[str, float]], beginning: str, unit: str) -> dict[str, Any]:
    """Return how many of the figures whose names begin so lie where, over all trials."""
    values = [
        {"value": value} for found in trials.values() for name, value in found.items() if name.startswith(beginning)
    ]
    return {
        "width": 420,
        "height": 140,
        "data": {"values": values},
        "mark": {"type": "bar", "color": ORANGE},
        "encoding": {
            "x": {"field": "value", "type": "quantitative", "bin": {"maxbins": 20}, "title": unit},
            "y": {"aggregate": "count", "type": "quantitative", "title": "count over all seeds"},
        },
    }


def _curves(
    trials: Mapping[int, Mapping[str, float]], lines: Mapping[str, tuple[str, str]], unit: str, along: str
) -> dict[str, Any]:
    """Return a curve a line and seed: the figures of each trial that begin as the line says, in the order along."""
    values = [
        {"line": line, "seed": seed, "x": found[name], "y": found[up + name.removeprefix(start)]}
        for line, (start, up) in lines.items()
        for seed, found in trials.items()
        for name in found
        if name.startswith(start)
    ]
    colours = {"domain": list(lines), "range": [ORANGE, GREY]}
    return {
        "width": 420,
        "height": 160,
        "data": {"values": values},
        "mark": {"type": "line", "point": True, "strokeWidth": 1.5},
        "encoding": {
            "x": {"field": "x", "type": "quantitative", "title": along},
            "y": {"field": "y", "type": "quantitative", "title": unit, "scale": {"zero": False}},
            "color": {"field": "line", "type": "nominal", "title": None, "scale": colours},
            "detail": {"field": "seed"},
        },
    }
