"""The plots of a report: plain numbers in, Vega-Lite specifications out, SVG at the end.

A specification holds its data; it names no address, so that nothing is ever fetched. The same numbers give the same
bytes. Estimates are the dictionaries of `evaluation.json`: `{"mean", "low", "high", "n"}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from sanbai.evaluation.theme import (
    BLUE,
    CONFIG,
    GREEN,
    GREY,
    INK,
    MODEL_COLOURS,
    MODEL_SHAPES,
    MUTED,
    ORANGE,
    model_label,
)

Spec = dict[str, Any]
Numbers = Mapping[str, float]
Rows = Sequence[Mapping[str, float]]

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
WIDTH = 500
# A width that holds labels and padding too, so that plots of one column stand flush.
FIT = {"type": "fit-x", "contains": "padding"}
_SMOOTHING = 0.05


def render_svg(spec: Spec) -> str:
    """Draw a specification; needs no network and no browser."""
    import vl_convert  # noqa: PLC0415 - 60 MB, wanted only where something is drawn

    return str(vl_convert.vegalite_to_svg({"$schema": _SCHEMA, "config": CONFIG, **spec}))


def loss_plot(curves: Mapping[str, Rows], *, metric: str = "loss") -> Spec:
    """Loss against step, a panel a stage, a centred running mean over every step's own value.

    Args:
        curves: stage -> rows with `step` and the metric; stages without a row are left out.
        metric: which number of a row.
    """
    panels = []
    for stage, rows in curves.items():
        points = [row for row in rows if metric in row]
        if not points:
            continue
        mean = running_mean([row[metric] for row in points])
        values = [{"step": row["step"], "value": row[metric], "mean": m} for row, m in zip(points, mean, strict=True)]
        x = {"field": "step", "type": "quantitative", "title": "step", "axis": {"tickCount": 4, "format": ",d"}}
        scale = {"zero": False, "nice": True}
        panels.append(
            {
                "title": {"text": stage, "fontSize": 13, "fontWeight": 500, "offset": 8},
                "width": 260,
                "height": 190,
                "data": {"values": values},
                "layer": [
                    {
                        "mark": {"type": "line", "color": BLUE, "opacity": 0.25, "strokeWidth": 1},
                        "encoding": {"x": x, "y": _y("value", "loss, nats", scale)},
                    },
                    {
                        "mark": {"type": "line", "color": BLUE},
                        "encoding": {"x": x, "y": _y("mean", "loss, nats", scale)},
                    },
                ],
            }
        )
    return {"title": "Loss of each stage of training", "hconcat": panels, "spacing": 36}


class JudgeSeries(NamedTuple):
    """Where a run's metrics hold one judge's scores."""

    metric: str
    """Mean score of an iteration's answers."""
    kl: str
    """Distance of the same answers from the supervised model, nats a response."""
    label: str
    """What people read."""


def reward_against_kl_plot(rows: Rows, judges: Sequence[JudgeSeries]) -> Spec:
    """Each judge's score against the distance from the supervised model, one point a measured iteration.

    Where the reward that is trained on climbs and the others fall, the policy has learned to please its judge alone.

    Args:
        rows: PPO's metrics, in order of iterations.
        judges: at most four; those that no row holds are left out.
    """
    panels = []
    for (metric, kl, label), colour in zip(judges, (ORANGE, BLUE, GREEN, GREY), strict=False):
        points = [row for row in rows if metric in row and kl in row]
        if not points:
            continue
        values = [{"kl": row[kl], "score": row[metric], "step": row["step"]} for row in points]
        x = {"field": "kl", "type": "quantitative", "title": "KL from the supervised model, nats a response",
             "axis": {"tickCount": 4}}  # fmt: skip
        y = _y("score", label, {"zero": False, "nice": True})
        panels.append(
            {
                "width": 260,
                "height": 190,
                "data": {"values": values},
                "layer": [
                    {
                        "mark": {"type": "line", "color": colour, "opacity": 0.35, "strokeWidth": 1.5},
                        "encoding": {"x": x, "y": y, "order": {"field": "step"}},
                    },
                    {"mark": {"type": "point", "color": colour, "size": 28}, "encoding": {"x": x, "y": y}},
                ],
            }
        )
    return {"title": "Scores against distance from the supervised model", "hconcat": panels, "spacing": 36}


def axes_plot(evaluation: Mapping[str, Mapping[str, Numbers]]) -> Spec:
    """Helpfulness, honesty and harmlessness of each model, with 95 % intervals."""
    axes = {"helpful": "Helpful", "honest": "Honest", "harmless": "Harmless"}
    values = [
        {"axis": label, "model": model_label(model), **interval(scores[axis])}
        for axis, label in axes.items()
        for model, scores in evaluation.items()
    ]
    x: Spec = {"field": "axis", "type": "nominal", "title": None, "sort": list(axes.values()),
               "axis": {"labelAngle": 0, "labelColor": INK, "labelFontSize": 13}}  # fmt: skip
    return _dots(
        "Helpfulness, honesty and harmlessness by model",
        values,
        evaluation,
        x=x,
        y_title="share of answers",
        domain=[0.0, 1.0],
    )


def tax_plot(evaluation: Mapping[str, Mapping[str, Numbers]], few_shot: Mapping[str, Mapping[str, Numbers]]) -> Spec:
    """What alignment cost in reading: bits per byte of held-out text, and few-shot accuracy by number of examples.

    Args:
        evaluation: model -> estimates, `bits_per_byte` among them.
        few_shot: model -> number of shots -> accuracy; may be empty.
    """
    bits = [{"model": model_label(model), **interval(scores["bits_per_byte"])} for model, scores in evaluation.items()]
    labels = [model_label(model) for model in evaluation]
    x: Spec = {"field": "model", "type": "nominal", "title": None, "sort": labels,
               "axis": {"labelAngle": 0, "labelColor": INK}}  # fmt: skip
    scale = {"zero": False, "nice": True}
    colour, shape = _model_scales(evaluation)
    left: Spec = {
        "width": 330,
        "height": 210,
        "data": {"values": bits},
        "layer": [
            {
                "mark": {"type": "rule"},
                "encoding": {
                    "x": x, "y": _y("low", "bits a byte, held-out text", scale), "y2": {"field": "high"},
                    "color": colour,
                },
            },
            {
                "mark": {"type": "point"},
                "encoding": {"x": x, "y": _y("mean", "", scale), "color": colour, "shape": shape},
            },
        ],
    }  # fmt: skip
    panels = [left]
    shots = [
        {"model": model_label(model), "shots": number, **interval(estimate)}
        for model, scores in few_shot.items()
        for number, estimate in scores.items()
    ]
    if shots:
        numbers = sorted({value["shots"] for value in shots}, key=int)
        x_shots: Spec = {"field": "shots", "type": "ordinal", "title": "examples in the prompt", "sort": numbers,
                         "axis": {"labelAngle": 0}}  # fmt: skip
        offset = {"field": "model", "sort": labels, "scale": {"paddingOuter": 1.2}}
        panels.append(
            {
                "width": 440,
                "height": 210,
                "data": {"values": shots},
                "layer": [
                    {
                        "mark": {"type": "rule"},
                        "encoding": {
                            "x": x_shots, "xOffset": offset, "y": percent("low", "right choices", {"zero": False}),
                            "y2": {"field": "high"}, "color": colour,
                        },
                    },
                    {
                        "mark": {"type": "point"},
                        "encoding": {
                            "x": x_shots, "xOffset": offset, "y": percent("mean", "", {"zero": False}),
                            "color": colour, "shape": shape,
                        },
                    },
                ],
            }
        )  # fmt: skip
    return {"title": "What reading lost: the alignment tax", "hconcat": panels, "spacing": 40}


def win_rate_by_kind_plot(by_kind: Mapping[str, Numbers], *, title: str) -> Spec:
    """Win rate on each kind of prompt, best first, with 95 % intervals and a line at one half.

    Args:
        by_kind: kind -> estimate.
        title: says who plays whom.
    """
    values = [{"kind": kind, **interval(estimate)} for kind, estimate in by_kind.items()]
    order = [value["kind"] for value in sorted(values, key=lambda value: -value["mean"])]
    y: Spec = {"field": "kind", "type": "nominal", "sort": order, "title": None,
               "axis": {"labelColor": INK, "grid": False}}  # fmt: skip
    colour = {
        "condition": [
            {"test": "datum.low > 0.5", "value": ORANGE},
            {"test": "datum.high < 0.5", "value": BLUE},
        ],
        "value": GREY,
    }
    x_title, scale = "prompts won, ties counted half", {"domain": [0.0, 1.0]}
    return {
        "title": title,
        "width": WIDTH,
        "autosize": FIT,
        "height": {"step": 30},
        "data": {"values": values},
        "layer": [
            reference_line(0.5, "x", scale),
            {
                "mark": {"type": "rule"},
                "encoding": {
                    "y": y, "x": percent("low", x_title, scale), "x2": {"field": "high"}, "color": colour,
                },
            },
            {"mark": {"type": "point"}, "encoding": {"y": y, "x": percent("mean", x_title, scale), "color": colour}},
        ],
    }  # fmt: skip


def _dots(
    title: str,
    values: list[Spec],
    models: Mapping[str, Any],
    *,
    x: Spec,
    y_title: str,
    domain: list[float],
) -> Spec:
    """Dots with intervals, models side by side within each group."""
    colour, shape = _model_scales(models)
    labels = [model_label(model) for model in models]
    offset = {"field": "model", "sort": labels, "scale": {"paddingOuter": 1.2}}
    return {
        "title": title,
        "width": WIDTH,
        "autosize": FIT,
        "height": 300,
        "data": {"values": values},
        "layer": [
            {
                "mark": {"type": "rule"},
                "encoding": {
                    "x": x, "xOffset": offset, "y": percent("low", y_title, {"domain": domain}),
                    "y2": {"field": "high"}, "color": colour,
                },
            },
            {
                "mark": {"type": "point"},
                "encoding": {
                    "x": x, "xOffset": offset, "y": percent("mean", y_title, {"domain": domain}), "color": colour,
                    "shape": shape,
                },
            },
        ],
    }  # fmt: skip


def _model_scales(models: Mapping[str, Any]) -> tuple[Spec, Spec]:
    """Return the colour and shape channels that tell models apart."""
    labels = [model_label(model) for model in models]
    colours = [MODEL_COLOURS.get(model, GREEN) for model in models]
    shapes = [MODEL_SHAPES.get(model, "diamond") for model in models]
    return (
        {"field": "model", "type": "nominal", "scale": {"domain": labels, "range": colours}},
        {"field": "model", "type": "nominal", "scale": {"domain": labels, "range": shapes}},
    )


def _y(field: str, title: str, scale: Spec) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": {"tickCount": 5}}


def percent(field: str, title: str, scale: Spec) -> Spec:
    """A quantitative channel shown in percent."""
    axis = {"format": ".0%", "tickCount": 5}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def reference_line(value: float, channel: str, scale: Spec) -> Spec:
    """A dashed line at a value of the axis with that scale."""
    mark = {"type": "rule", "strokeDash": [4, 4], "strokeWidth": 1, "color": MUTED}
    position = {"field": "value", "type": "quantitative", "scale": scale}
    return {"data": {"values": [{"value": value}]}, "mark": mark, "encoding": {channel: position}}


def interval(estimate: Numbers | float) -> Spec:
    """Return mean, low and high; an exact number is its own interval."""
    if isinstance(estimate, Mapping):
        return {"mean": estimate["mean"], "low": estimate["low"], "high": estimate["high"]}
    return {"mean": estimate, "low": estimate, "high": estimate}


def running_mean(values: Sequence[float]) -> list[float]:
    """Return the mean of the tenth of the values around each; near the beginning the window narrows on both sides.

    A centred window does not lag behind a falling loss, as an exponential mean would.
    """
    reach = max(1, int(_SMOOTHING * len(values)))
    sums = list(accumulate(values, initial=0.0))
    means = []
    for number in range(len(values)):
        half = min(reach, number)
        stop = min(number + half + 1, len(values))
        means.append((sums[stop] - sums[number - half]) / (stop - number + half))
    return means
