"""Trials of a phenomenon: each seed's numbers in one file, the whole as JSON and as a plot.

A seed that is measured is not measured again; what a stopped run had trained is found in the workspace. So the same
command continues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from sanbai.evaluation.plots import render_svg
from sanbai.evaluation.theme import GREY, INK, MUTED, ORANGE
from sanbai.foundation.files import read_json, write_atomic, write_json_atomic
from sanbai.foundation.stage import Job
from sanbai.lab.bench import FULL, Bench, Size

#: The number of a seed and the bench of that seed -> figure -> value.
Measure = Callable[[Bench], Mapping[str, float]]
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Phenomenon:
    """A published effect with its control.

    Attributes:
        name: of the command and the files.
        claim: what is published, one sentence with its source.
        measure: trains and measures one seed; figures are shares in [0, 1].
        effect: the figures that should be high.
        control: the figures that should not.
    """

    name: str
    claim: str
    measure: Measure
    effect: tuple[str, ...]
    control: tuple[str, ...]


def run_trials(
    job: Job, phenomenon: Phenomenon, *, seeds: Sequence[int] = SEEDS, size: Size = FULL, **settings: Any
) -> dict[str, Any]:
    """Measure every seed, write `lab/<name>.json` and `lab/<name>.svg` into the workspace, and return the record.

    Args:
        job: workspace, progress, stop signal.
        phenomenon: what is tried.
        seeds: one trial each.
        size: of text and models.
        **settings: other fields of the bench.

    Raises:
        Interrupted: asked to stop; the same call continues.
    """
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
    }
    write_json_atomic(folder / f"{phenomenon.name}.json", record)
    write_atomic(folder / f"{phenomenon.name}.svg", render_svg(plot(phenomenon, trials)))
    return record


def plot(phenomenon: Phenomenon, trials: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """Return a Vega-Lite specification: a row a figure, a dot a seed, a line at the mean."""
    values = [
        {"figure": name.replace("_", " "), "seed": seed, "share": found[name], "kind": kind}
        for kind, names in (("effect", phenomenon.effect), ("control", phenomenon.control))
        for name in names
        for seed, found in trials.items()
    ]
    order = [name.replace("_", " ") for name in (*phenomenon.effect, *phenomenon.control)]
    y = {"field": "figure", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 320}}
    colour = {
        "field": "kind",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ["effect", "control"], "range": [ORANGE, GREY]},
    }
    scale = {"domain": [0, 1]}
    return {
        "title": {"text": phenomenon.name.replace("_", " "), "color": INK},
        "width": 420,
        "height": {"step": 28},
        "data": {"values": values},
        "layer": [
            {
                "mark": {"type": "tick", "color": MUTED, "thickness": 2},
                "encoding": {
                    "y": y,
                    "x": {"field": "share", "type": "quantitative", "aggregate": "mean", "title": "share"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 0.9},
                "encoding": {
                    "y": y,
                    "x": {"field": "share", "type": "quantitative", "scale": scale, "title": "share"},
                    "color": colour,
                },
            },
        ],
    }
