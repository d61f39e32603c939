from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from tests.evaluation.record import EVALUATION, SERIES

from sanbai.evaluation import plots, reward_plots
from sanbai.evaluation.plots import JudgeSeries, Spec, render_svg
from sanbai.evaluation.theme import BLUE, GREEN, GREY, GRID, INK, MODEL_COLOURS, MUTED, ORANGE, PAPER

BY_KIND = {kind: scores["win_rate"]["ppo_vs_supervised"] for kind, scores in EVALUATION["by_kind"].items()}
FEW_SHOT = {name: scores["accuracy"] for name, scores in EVALUATION["few_shot"].items()}
SPECS = {
    "loss": plots.loss_plot({"Pretraining": SERIES["pretrain"], "Nothing": []}),
    "kl": plots.reward_against_kl_plot(
        SERIES["ppo"], [JudgeSeries("reward", "kl", "reward"), JudgeSeries("absent", "kl", "absent")]
    ),
    "reward": reward_plots.reward_accuracy_plot(EVALUATION["reward_model"]),
    "reliability": reward_plots.reliability_plot(EVALUATION["reward_model"]["reliability"]),
    "lengths": reward_plots.length_gap_plot(EVALUATION["reward_model"]["by_length_gap"]),
    "steps": reward_plots.accuracy_over_steps_plot(SERIES["reward"], labeler_agreement=0.726),
    "axes": plots.axes_plot(EVALUATION["evaluation"]),
    "tax": plots.tax_plot(EVALUATION["evaluation"], FEW_SHOT),
    "kinds": plots.win_rate_by_kind_plot(BY_KIND, title="Practised against supervised"),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_drawing_is_well_formed_the_same_each_time_and_asks_for_nothing(name: str) -> None:
    svg = render_svg(SPECS[name])
    ET.fromstring(svg)
    assert svg == render_svg(SPECS[name])
    assert set(re.findall(r"https?://[^\"']+", svg)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    # Ids would clash where several drawings stand on one page.
    assert " id=" not in svg
    assert SPECS[name]["title"] in svg


@pytest.mark.parametrize("name", SPECS)
def test_only_the_theme_s_colours_appear(name: str) -> None:
    colours = set(re.findall(r'(?:fill|stroke)="([^"]+)"', render_svg(SPECS[name])))
    assert colours <= {"none", "transparent", BLUE, GREEN, GREY, GRID, INK, MUTED, ORANGE, PAPER}
    assert INK in colours


def test_points_stand_where_their_numbers_say() -> None:
    svg = render_svg(plots.win_rate_by_kind_plot({"a": {"mean": 0.25, "low": 0.2, "high": 0.3}}, title="t"))
    (x,) = re.findall(r'class="mark-symbol.*?translate\(([\d.]+),', svg)
    width = float(re.findall(r'class="background"[^>]*d="M0,0h([\d.]+)v', svg)[0])
    assert float(x) == pytest.approx(0.25 * width, abs=0.6)


def test_kinds_surely_won_and_surely_lost_differ_in_colour_from_the_rest() -> None:
    estimate = {"won": (0.6, 0.55, 0.65), "lost": (0.4, 0.35, 0.45), "open": (0.5, 0.45, 0.55)}
    for kind, (mean, low, high) in estimate.items():
        svg = render_svg(plots.win_rate_by_kind_plot({kind: {"mean": mean, "low": low, "high": high}}, title="t"))
        (colour,) = set(re.findall(r'class="mark-symbol.*?fill="([^"]+)"', svg))
        assert colour == {"won": ORANGE, "lost": BLUE, "open": GREY}[kind]


def test_a_running_mean_keeps_a_constant_and_equals_a_slow_loop() -> None:
    assert plots.running_mean([3.0] * 50) == pytest.approx([3.0] * 50)
    assert plots.running_mean([]) == []
    values = [math.sin(i) + 0.1 * i for i in range(61)]
    expected = []
    for i in range(61):
        half = min(3, i)  # a twentieth of 61, on each side
        window = values[i - half : i + half + 1]
        expected.append(sum(window) / len(window))
    assert plots.running_mean(values) == pytest.approx(expected)


def test_models_keep_their_colours_whichever_are_drawn() -> None:
    alone = {"ppo": EVALUATION["evaluation"]["ppo"]}
    svg = render_svg(plots.axes_plot(alone))
    assert MODEL_COLOURS["ppo"] in svg
    assert MODEL_COLOURS["base"] not in svg


def test_specifications_name_no_address() -> None:
    def texts(value: object) -> list[str]:
        if isinstance(value, dict):
            return [text for part in value.values() for text in texts(part)] + list(value)
        if isinstance(value, list):
            return [text for part in value for text in texts(part)]
        return [value] if isinstance(value, str) else []

    spec: Spec
    for spec in SPECS.values():
        assert not [text for text in texts(spec) if "://" in text or text == "url"]
