"""One look for every plot and table of a report: few colours, each with one meaning, told apart by any eye.

Blue and orange stay distinct under every common colour blindness, and models differ in shape as well. The page
darkens a plot by replacing the ink, grid and paper colours named here, so that no other colour of a plot may equal one
of them.
"""

from __future__ import annotations

from typing import Any

INK = "#1f2733"
MUTED = "#5d6775"
GRID = "#e4e7eb"
PAPER = "#ffffff"

GREY, BLUE, ORANGE, GREEN = "#8b939e", "#2a6fb3", "#d9701e", "#3d8f6f"

MODEL_LABELS = {
    "base": "Base",
    "supervised": "Supervised",
    "served": "Served",
    "ppo": "Practised",
    "ppo_without_ptx": "Practised without ptx",
}
"""What people read for each model's name; other names are shown as they are."""
MODEL_COLOURS = {"base": GREY, "supervised": BLUE, "served": GREEN, "ppo": ORANGE, "ppo_without_ptx": GREEN}
MODEL_SHAPES = {
    "base": "circle",
    "supervised": "square",
    "served": "diamond",
    "ppo": "triangle-up",
    "ppo_without_ptx": "diamond",
}

CONFIG: dict[str, Any] = {
    # Marks without a description each: the page describes a figure once, and files stay small.
    "aria": False,
    "font": "sans-serif",
    "background": PAPER,
    "padding": 12,
    "view": {"stroke": None},
    "title": {"anchor": "start", "color": INK, "fontSize": 15, "fontWeight": 600, "offset": 14, "frame": "bounds",
              "subtitleColor": MUTED, "subtitleFontSize": 12, "subtitlePadding": 6},
    "axis": {
        "domain": False, "ticks": False, "labelPadding": 8, "titlePadding": 10, "grid": True, "gridColor": GRID,
        "labelColor": MUTED, "labelFontSize": 12, "titleColor": MUTED, "titleFontSize": 12, "titleFontWeight": 400,
    },
    "axisX": {"grid": False, "domain": True, "domainColor": GRID, "labelFlush": False},
    "header": {"labelColor": MUTED, "labelFontSize": 12, "titleColor": MUTED, "titleFontSize": 12},
    "legend": {
        "title": None, "orient": "top", "direction": "horizontal", "labelColor": INK, "labelFontSize": 12,
        "symbolSize": 80, "columnPadding": 18, "offset": 10, "padding": 0,
    },
    "line": {"strokeWidth": 2, "strokeCap": "round", "strokeJoin": "round"},
    "rule": {"strokeWidth": 2},
    "point": {"filled": True, "size": 90, "opacity": 1},
    "text": {"color": INK, "fontSize": 12},
}  # fmt: skip
"""Vega-Lite configuration shared by every plot."""


def model_label(name: str) -> str:
    """Return what people read for a model's name."""
    return MODEL_LABELS.get(name, name)
