"""The page and the plots of a run on files, from numbers made up here."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from rich.console import Console

from sanbai.evaluation.files_figures import draw_files_figures, reader_rows, readers_plot
from sanbai.evaluation.files_report import files_report_html, files_summary, files_terminal_table
from sanbai.evaluation.plots import render_svg
from sanbai.evaluation.theme import BLUE, GREEN, GREY, GRID, INK, MUTED, ORANGE, PAPER


def estimate(mean: float, reach: float = 0.01) -> dict[str, float]:
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "n": 40}


BITS = {
    "ngram": estimate(2.2), "base": estimate(1.9), "supervised": estimate(1.95), "ppo": estimate(1.96),
    "ppo_without_ptx": estimate(2.05),
}  # fmt: skip
ACCURACY = {
    "accuracy": estimate(0.58, 0.04), "longer_wins": estimate(0.55, 0.04), "by_source": {"<b>HH</b>": estimate(0.6)},
    "calibration_error": 0.1, "num_pairs": 300, "num_left_out": 7,
}  # fmt: skip
EVALUATION: dict[str, Any] = {
    "models": ["base", "supervised", "ppo", "ppo_without_ptx"],
    "reading": {
        "bits_per_byte": BITS,
        "xz": {"alone": 2.9, "after_training": 2.6, "num_bytes": 1000, "training_bytes": 45_684_200},
        "by_source": {"books/<i>.jsonl": BITS},
        "num_documents": 40,
        "num_bytes": 1000,
        "ngram_order": 5,
    },
    "alignment_tax": {
        f"{policy}_vs_supervised": {"relative": estimate(0.01, 0.002)} for policy in ("ppo", "ppo_without_ptx")
    },
    "reward_model": ACCURACY,
    "judge": ACCURACY,
    "practice": {
        name: {
            "judge_reward": estimate(0.2), "reward": estimate(0.4), "kl": estimate(1.5),
            **({} if name == "supervised" else {"judge_reward_gain": estimate(0.1, 0.2)}),
        }
        for name in ("supervised", "ppo", "ppo_without_ptx")
    },
    "sampling": {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 64},
}  # fmt: skip
SERIES = {
    "pretrain": [{"step": n, "loss": 5.0 / n} for n in range(1, 9)],
    "ppo": [{"step": n, "reward": n / 10, "kl": n / 5, "judge_reward": 0.1, "judged_kl": n / 5} for n in range(1, 9)],
}
SAMPLES = [
    {
        "kind": "other",
        "task": "held-out prompt",
        "messages": [{"role": "user", "content": "<script>alert(1)</script>"}],
        "answers": {name: {"answer": f"{name} & co"} for name in EVALUATION["models"]},
    }
]


@pytest.mark.parametrize(
    ("base", "ngram", "words"),
    [
        (estimate(1.9), estimate(2.2), "reads held-out text better than a 5-gram"),
        (estimate(1.9, 0.3), estimate(2.0, 0.3), "reads held-out text a little better than"),
        (estimate(2.3), estimate(2.2), "reads held-out text no better than"),
    ],
)
def test_the_headline_says_whether_learning_beat_counting(
    base: dict[str, float], ngram: dict[str, float], words: str
) -> None:
    reading = {"bits_per_byte": {"ngram": ngram, "base": base}, "ngram_order": 5}
    assert words in files_summary({"reading": reading})


def test_the_page_shows_every_reader_and_escapes_every_text() -> None:
    figures = draw_files_figures(EVALUATION, SERIES)
    assert [figure.name for figure in figures] == ["bits_per_byte", "reward_accuracy", "reward_against_kl_ppo", "loss"]
    page = files_report_html(
        EVALUATION, samples=SAMPLES, figures=figures, seconds={"base": 2100.0}, facts={"seed": "1"}
    )
    for words in (
        "5-gram, Kneser-Ney", "xz -9e alone", "xz -9e after the training text", "45,684,200", "35 min 00 s",
        "58.0\u00a0% (54.0–62.0\u00a0%) of 300 held-out pairs", "at 1.50 nats a response", "by +1.00\u00a0%",
        "7 pairs with an answer longer", "&lt;b&gt;HH", "books/&lt;i&gt;.jsonl", "&lt;script&gt;", "ppo &amp; co",
    ):  # fmt: skip
        assert words in page, words
    assert "<script" not in page


def test_the_terminal_shows_the_same_rows() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(files_terminal_table(EVALUATION, seconds={"base": 2100.0}))
    text = console.export_text()
    assert "xz -9e alone" in text
    assert re.search(r"Base\s+1\.900\s+–\s+–\s+–\s+35 min 00 s", text)
    assert "[1.890–1.910]" in text


def test_the_exact_figures_of_xz_have_no_interval() -> None:
    rows = reader_rows(EVALUATION["reading"])
    assert list(rows) == ["xz_alone", "xz", *BITS]
    assert rows["xz"]["low"] == rows["xz"]["mean"] == rows["xz"]["high"] == 2.6


def test_the_readers_drawing_is_well_formed_and_in_the_themes_colours() -> None:
    svg = render_svg(readers_plot(EVALUATION["reading"]))
    ET.fromstring(svg)
    colours = set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg))
    assert colours <= {"none", "transparent", BLUE, GREEN, GREY, GRID, INK, MUTED, ORANGE, PAPER}
    assert {BLUE, GREEN, ORANGE, GREY} <= colours
    assert "1.960" in svg
