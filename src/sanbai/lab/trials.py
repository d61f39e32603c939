"""Trials of a phenomenon: each seed's numbers in one file, the whole as JSON and as a plot.

A seed that is measured is not measured again; what a stopped run had trained is found in the workspace. So the same
command continues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, pstdev
from typing import Any

from sanbai.evaluation.plots import render_svg
from sanbai.evaluation.theme import GREY, INK, MUTED, ORANGE
from sanbai.foundation.files import read_json, write_atomic, write_json_atomic
from sanbai.foundation.stage import Job
from sanbai.lab.bench import FULL, Bench, Size

#: The number of a seed and the bench of that seed -> figure -> value.
Measure = Callable[[Bench], Mapping[str, float]]
#: What figures are measured in where their phenomenon says nothing else.
SHARE = "share"


@dataclass(frozen=True)
class Phenomenon:
    """A published effect with its control.

    Attributes:
        name: of the command and the files.
        claim: what is published, one sentence with its source.
        measure: trains and measures one seed; it may return more figures than are named here.
        effect: the figures that should show the effect, high ones where they are shares.
        control: the figures that should not.
        units: of figures that are no shares in [0, 1]; those of one unit share an axis.
        histogram: beginning of the names of figures that are counted over all trials, and their unit.
        size: of text and models where nothing else is asked for.
        num_seeds: trials that are reported.
    """

    name: str
    claim: str
    measure: Measure
    effect: tuple[str, ...]
    control: tuple[str, ...]
    units: Mapping[str, str] = field(default_factory=dict)
    histogram: tuple[str, str] | None = None
    size: Size = FULL
    num_seeds: int = 3


def run_trials(
    job: Job,
    phenomenon: Phenomenon,
    *,
    seeds: Sequence[int] | None = None,
    size: Size | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure every seed, write `lab/<name>.json` and `lab/<name>.svg` into the workspace, and return the record.

    The record has each trial's figures, and the mean and the spread (standard deviation) over trials of those named.

    Args:
        job: workspace, progress, stop signal.
        phenomenon: what is tried.
        seeds: one trial each; by default 1, 2, ... as many as the phenomenon reports.
        size: of text and models; by default the phenomenon's.
        **settings: other fields of the bench.

    Raises:
        Interrupted: asked to stop; the same call continues.
    """
    seeds = range(1, phenomenon.num_seeds + 1) if seeds is None else seeds
    size = size or phenomenon.size
    folder = job.workspace.root / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    trials = {}
    for seed in seeds:
        path = folder / f"{phenomenon.name}-{seed}.json"
        known: dict[str, Any] = read_json(path) if path.exists() else {}
        if known.get("size") != asdict(size):
            known = {"size": asdict(size), "figures": dict(phenomenon.measure(Bench(job, seed, size, **settings)))}
            write_json_atomic(path, known)
        trials[seed] = known["figures"]
    figures = (*phenomenon.effect, *phenomenon.control)
    record = {
        "phenomenon": phenomenon.name,
        "claim": phenomenon.claim,
        "effect": list(phenomenon.effect),
        "control": list(phenomenon.control),
        "size": asdict(size),
        "trials": {str(seed): found for seed, found in trials.items()},
        "means": {name: fmean(found[name] for found in trials.values()) for name in figures},
        "spreads": {name: pstdev(found[name] for found in trials.values()) for name in figures},
    }
    write_json_atomic(folder / f"{phenomenon.name}.json", record)
    write_atomic(folder / f"{phenomenon.name}.svg", render_svg(plot(phenomenon, trials)))
    return record


def plot(phenomenon: Phenomenon, trials: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """Return a Vega-Lite specification: a panel a unit, in it a row a figure, a dot a seed, a line at the mean."""
    units = dict.fromkeys(phenomenon.units.get(name, SHARE) for name in (*phenomenon.effect, *phenomenon.control))
    panels = [_dots(phenomenon, trials, unit) for unit in units]
    if phenomenon.histogram is not None:
        panels.append(_histogram(trials, *phenomenon.histogram))
    title = {"title": {"text": phenomenon.name.replace("_", " "), "color": INK}}
    if len(panels) == 1:
        return {**title, **panels[0]}
    return {**title, "vconcat": panels, "resolve": {"scale": {"x": "independent", "y": "independent"}}}


def _dots(phenomenon: Phenomenon, trials: Mapping[int, Mapping[str, float]], unit: str) -> dict[str, Any]:
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
