"""The plots of a reward model: accuracy beside its bounds, while it trains, by stated probability, by length.

Plain numbers in, Vega-Lite specifications out, as in `plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sanbai.evaluation.plots import FIT, WIDTH, Rows, Spec, interval, percent, reference_line, running_mean
from sanbai.evaluation.theme import BLUE, GREY, INK, MUTED, ORANGE


def reward_accuracy_plot(reward_model: Mapping[str, Any]) -> Spec:
    """The reward model's pair accuracy beside what bounds it.

    Args:
        reward_model: `accuracy`, `labeler_agreement`, `best_possible` and, if known, `longer_wins`; each an estimate
            or a plain number, which is then exact.
    """
    names = {
        "accuracy": "Reward model",
        "longer_wins": "Longer answer wins",
        "labeler_agreement": "Labelers among themselves",
        "best_possible": "Best the noise allows",
    }
    values = [{"name": label, **interval(reward_model[key])} for key, label in names.items() if key in reward_model]
    order = [value["name"] for value in values]
    y = {"field": "name", "type": "nominal", "sort": order, "title": None,
         "axis": {"labelColor": INK, "grid": False, "labelLimit": 220}}  # fmt: skip
    bounds = [end for value in values for end in (value["low"], value["high"])]
    scale = {"domain": [min(0.45, *bounds), max(0.85, *bounds) + 0.03], "nice": False}
    x_title = "pairs ordered as held-out labelers did; bars start at chance"
    colour = {"condition": {"test": "datum.name == 'Reward model'", "value": ORANGE}, "value": GREY}
    return {
        "title": "Reward model accuracy and its bounds",
        "width": WIDTH,
        "autosize": FIT,
        "height": {"step": 46},
        "data": {"values": values},
        "layer": [
            {
                "mark": {"type": "bar", "height": 16, "cornerRadiusEnd": 3, "opacity": 0.85},
                "encoding": {"y": y, "x": percent("mean", x_title, scale), "x2": {"datum": 0.5}, "color": colour},
            },
            {
                "mark": {"type": "rule", "color": INK, "strokeWidth": 1.5},
                "encoding": {"y": y, "x": percent("low", x_title, scale), "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 8},
                "encoding": {
                    "y": y, "x": percent("high", x_title, scale),
                    "text": {"field": "mean", "type": "quantitative", "format": ".1%"},
                },
            },
            reference_line(0.5, "x", scale),
        ],
    }  # fmt: skip


def accuracy_over_steps_plot(rows: Rows, *, metric: str = "accuracy", labeler_agreement: float) -> Spec:
    """The reward model's pair accuracy while it trains, with the labelers' agreement as a dashed line."""
    points = [row for row in rows if metric in row]
    mean = running_mean([row[metric] for row in points])
    values = [{"step": row["step"], "mean": m} for row, m in zip(points, mean, strict=True)]
    x = {"field": "step", "type": "quantitative", "title": "step", "axis": {"tickCount": 5, "format": ",d"}}
    return {
        "title": "Reward model accuracy during training",
        "width": WIDTH,
        "autosize": FIT,
        "height": 210,
        "layer": [
            reference_line(labeler_agreement, "y", {"zero": False}),
            {
                "data": {"values": values},
                "mark": {"type": "line", "color": ORANGE},
                "encoding": {"x": x, "y": percent("mean", "pairs ordered rightly, running mean", {"zero": False})},
            },
        ],
    }


def reliability_plot(bins: Sequence[Mapping[str, Any]]) -> Spec:
    """Observed share against stated probability, a dot a bin with its interval; the dashed line is honesty.

    Args:
        bins: `reliability` of a reward model's record.
    """
    values = [{"stated": each["stated"], **interval(each["observed"])} for each in bins]
    scale = {"domain": [0.5, 1.0]}
    observed = {"domain": [min(0.4, *(value["low"] for value in values)), 1.0]}
    title = "probability that the model states"
    x, y_title = percent("stated", title, scale), "observed share"
    return {
        "title": "What it says of a preference, and how often it is so",
        "width": WIDTH,
        "autosize": FIT,
        "height": 260,
        "layer": [
            {
                "data": {"values": [{"stated": 0.5, "mean": 0.5}, {"stated": 1.0, "mean": 1.0}]},
                "mark": {"type": "line", "strokeDash": [4, 4], "strokeWidth": 1, "color": MUTED},
                "encoding": {"x": x, "y": percent("mean", y_title, observed)},
            },
            {
                "data": {"values": values},
                "mark": {"type": "rule", "color": ORANGE},
                "encoding": {"x": x, "y": percent("low", y_title, observed), "y2": {"field": "high"}},
            },
            {
                "data": {"values": values},
                "mark": {"type": "point", "color": ORANGE},
                "encoding": {"x": x, "y": percent("mean", y_title, observed)},
            },
        ],
    }


def length_gap_plot(bins: Sequence[Mapping[str, Any]]) -> Spec:
    """Accuracy by difference in length, where people chose the longer answer and where they chose the shorter.

    Args:
        bins: `by_length_gap` of a reward model's record.
    """
    series = {
        "longer_chosen": ("longer chosen", ORANGE),
        "shorter_chosen": ("shorter chosen", BLUE),
        "longer_wins": ("preferring the longer", GREY),
    }
    labels = [label for label, _ in series.values()]
    values = [
        {"gap": gap_label(each), "series": label, **interval(each[name])}
        for each in bins
        for name, (label, _) in series.items()
        if name in each
    ]
    x: Spec = {"field": "gap", "type": "nominal", "sort": [gap_label(each) for each in bins],
               "title": "difference in characters", "axis": {"labelAngle": 0}}  # fmt: skip
    scale = {"domain": labels, "range": [colour for _, colour in series.values()]}
    colour = {"field": "series", "type": "nominal", "sort": labels, "scale": scale}
    offset = {"field": "series", "sort": labels, "scale": {"paddingOuter": 1.2}}
    domain = {"domain": [0.0, 1.0]}
    return {
        "title": "Reward model accuracy by difference in length",
        "width": WIDTH,
        "autosize": FIT,
        "height": 260,
        "data": {"values": values},
        "layer": [
            reference_line(0.5, "y", domain),
            {
                "mark": {"type": "rule"},
                "encoding": {
                    "x": x, "xOffset": offset, "y": percent("low", "pairs ordered rightly", domain),
                    "y2": {"field": "high"}, "color": colour,
                },
            },
            {
                "mark": {"type": "point"},
                "encoding": {
                    "x": x, "xOffset": offset, "y": percent("mean", "pairs ordered rightly", domain),
                    "color": colour,
                },
            },
        ],
    }  # fmt: skip


def gap_label(each: Mapping[str, Any]) -> str:
    """Return what people read for a bin of differences in length."""
    return f"{each['least']}" if each["least"] == each["most"] else f"{each['least']}–{each['most']}"
