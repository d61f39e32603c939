"""The figures of a report on people's own files; drawings that other reports have too come from `plots`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanbai.evaluation.figures import STAGES, Figure, trust_figures
from sanbai.evaluation.plots import (
    JudgeSeries,
    Rows,
    Spec,
    loss_plot,
    render_svg,
    reward_against_kl_plot,
)
from sanbai.evaluation.reward_plots import reward_accuracy_plot
from sanbai.evaluation.theme import GREY, INK, MODEL_COLOURS, MODEL_LABELS, model_label

POLICIES = ("ppo", "ppo_without_ptx")
JUDGES = (
    JudgeSeries("reward", "kl", "reward it is trained on"),
    JudgeSeries("judge_reward", "judged_kl", "second judge, watched prompts"),
)


def draw_files_figures(evaluation: Mapping[str, Any], series: Mapping[str, Rows]) -> list[Figure]:
    """Draw every figure that there is data for.

    Args:
        evaluation: the content of `evaluation.json`.
        series: pretrain, supervise, reward, ppo, ppo_without_ptx -> its rows of metrics, each with `step`.
    """
    figures = [
        Figure(
            "bits_per_byte",
            "Held-out text, with 95 % intervals over documents; less is better. Grey readers learn nothing: xz looks "
            "for repetitions, the n-gram model counts.",
            render_svg(readers_plot(evaluation["reading"])),
        ),
        Figure(
            "reward_accuracy",
            "People's strict pairs on held-out prompts. Without knowing anything, the longer answer is a good guess in "
            "some collections and a bad one in others.",
            render_svg(reward_accuracy_plot(evaluation["reward_model"])),
        ),
        *trust_figures(evaluation["reward_model"]),
    ]
    for policy in POLICIES:
        rows = series.get(policy, [])
        if any(judge.kl in row and judge.metric in row for row in rows for judge in JUDGES):
            spec = reward_against_kl_plot(rows, JUDGES)
            spec["title"] = f"{model_label(policy)}: scores against distance from the supervised model"
            text = (
                "Each dot is an iteration. A reward that climbs proves nothing alone: the second judge saw other pairs."
            )
            figures.append(Figure(f"reward_against_kl_{policy}", text, render_svg(spec), wide=True))
    curves = {
        label: series[stage] for stage, label in STAGES.items() if any("loss" in r for r in series.get(stage, []))
    }
    if curves:
        text = (
            "Pale lines are single steps, dark lines their running mean; in nats a token, for the reward model a pair."
        )
        figures.append(Figure("loss", text, render_svg(loss_plot(curves)), wide=True))
    return figures


def reader_label(name: str, reading: Mapping[str, Any]) -> str:
    """Return what people read for a reader's name: xz, the n-gram model, or a model's label."""
    names = {
        "xz_alone": "xz -9e alone",
        "xz": "xz -9e after the training text",
        "ngram": f"{reading.get('ngram_order', 5)}-gram, Kneser-Ney",
    }
    return names.get(name) or model_label(name)


def reader_rows(reading: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Return reader -> estimate, xz's exact figures first: their interval is the number itself."""
    exact = {"xz_alone": reading["xz"]["alone"], "xz": reading["xz"]["after_training"]}
    return {
        **{name: {"mean": value, "low": value, "high": value} for name, value in exact.items()},
        **reading["bits_per_byte"],
    }


def readers_plot(reading: Mapping[str, Any]) -> Spec:
    """Bits per byte of each reader, a dot with its interval.

    Args:
        reading: of `evaluation.json`.
    """
    rows = reader_rows(reading)
    values = [{"name": reader_label(name, reading), **rows[name]} for name in rows]
    colours = [MODEL_COLOURS[name] if name in MODEL_LABELS and name != "base" else GREY for name in rows]
    order = [value["name"] for value in values]
    y: Spec = {
        "field": "name", "type": "nominal", "sort": order, "title": None,
        "axis": {"labelColor": INK, "grid": False, "labelLimit": 240},
    }  # fmt: skip

    def x(field: str) -> Spec:
        return {
            "field": field, "type": "quantitative", "title": "bits a byte, held-out text",
            "scale": {"zero": False, "nice": True}, "axis": {"tickCount": 5},
        }  # fmt: skip

    colour = {"field": "name", "type": "nominal", "legend": None, "scale": {"domain": order, "range": colours}}
    return {
        "title": "What held-out text costs each reader",
        "width": 500,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "height": {"step": 34},
        "data": {"values": values},
        "layer": [
            {"mark": {"type": "rule"}, "encoding": {"y": y, "x": x("low"), "x2": {"field": "high"}, "color": colour}},
            {"mark": {"type": "point"}, "encoding": {"y": y, "x": x("mean"), "color": colour}},
            {
                "mark": {"type": "text", "align": "left", "dx": 10},
                "encoding": {
                    "y": y,
                    "x": x("high"),
                    "text": {"field": "mean", "type": "quantitative", "format": ".3f"},
                },
            },
        ],
    }
