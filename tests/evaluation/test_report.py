from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from tests.evaluation.record import EVALUATION, MISTAKES, MODELS, SAMPLES, SERIES, estimate

from sanbai.evaluation.figures import draw_figures
from sanbai.evaluation.report import report_html, summary_sentence
from sanbai.evaluation.theme import GRID, INK, MUTED

VERDICT = {
    "promote": False,
    "checks": [
        {"name": "win rate", "passed": True, "found": "0.596", "wanted": "a lower end > 0.5"},
        {"name": "kind <rewrite>", "passed": False, "found": "-0.3", "wanted": "> -0.1"},
    ],
    "worse": ["<rewrite>: helpful -0.3"],
}


class Outline(HTMLParser):
    """Checks that tags close in order and collects what a page would do."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def page() -> str:
    return report_html(
        EVALUATION,
        samples=SAMPLES,
        figures=draw_figures(EVALUATION, SERIES),
        mistakes=MISTAKES,
        seconds={"base": 182.4},
        verdict=VERDICT,
        facts={"Data": "the <tiny> world"},
    )


def test_the_page_is_well_formed_and_stands_alone(page: str) -> None:
    found = outline(page)
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(found.tags)
    assert not [value for name, value in found.attributes if name in {"href", "src", "srcset", "action"}]
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert "url(" not in page
    assert "@import" not in page
    assert "xlink:href" not in page


def test_every_text_from_outside_is_escaped(page: str) -> None:
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Does &lt;b&gt;Peter&lt;/b&gt; like painting?" in page
    assert "the &lt;tiny&gt; world" in page
    assert "Who is &lt;u&gt;Otto&lt;/u&gt;?" in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page
    assert "&lt;i&gt;rewrite&lt;/i&gt;" in page
    assert "<p>Failed: kind &lt;rewrite&gt; -0.3, wanted &gt; -0.1. Worse than before: &lt;rewrite&gt;: helpful" in page


def test_the_page_shows_each_figure_with_its_interval(page: str) -> None:
    text = outline(page).text.replace("\u00a0", " ")
    for expected in ("68.0 %", "65.0–71.0", "0.851", "0.839–0.863", "59.6 %", "56.8–62.4", "3 min 02 s", "1.31"):
        assert expected in text
    assert "Refused by the gate" in text
    assert "(nothing)" in text


def test_the_page_says_when_the_reward_model_may_be_trusted_and_shows_its_mistakes(page: str) -> None:
    text = outline(page).text.replace("\u00a0", " ")
    assert "Chosen by 3 of 4 labelers" in text
    assert "Preferred by the model, 97 % sure" in text
    assert "where they agree most, their mean orders 81.0 % of pairs rightly, where least 64.0 %" in text
    assert "Their spread predicts errors" in text
    assert "in 56.0 % (54.0–58.0 %) of couples" in text
    rows = re.findall(r'<th scope="row">1–12</th>.*?</tr>', page)
    assert [figure for row in rows for figure in re.findall(r">([\d.]+) %<", row)] == ["72.0", "83.0", "57.0", "58.0"]


def test_the_page_says_whose_rankings_taught_the_reward_model(page: str) -> None:
    text = outline(page).text.replace("\u00a0", " ")
    assert "12 rankings of people and 800 of simulated labelers, and by 80 of a model." in text
    assert "model:model-0a1b orders 69.0 % (67.0–71.0 %) of this round’s pairs as their labelers did" in text
    teachers = {"rankings": {"person": 12, "simulated": 0, "model": 0}, "model_agreement": {}}
    record = {**EVALUATION, "reward_model": {**EVALUATION["reward_model"], "teachers": teachers}}
    assert "none is a model’s" in outline(report_html(record, samples=[], figures=[])).text


def test_a_spread_whose_interval_holds_one_half_is_not_said_to_predict() -> None:
    entry = EVALUATION["reward_model"]
    unsure = {**entry["disagreement"], "error_by_spread": estimate(0.52)}
    record = {**EVALUATION, "reward_model": {**entry, "disagreement": unsure}}
    assert "does not surely predict errors" in outline(report_html(record, samples=[], figures=[])).text


def test_without_a_verdict_the_page_says_what_became_worse() -> None:
    text = outline(report_html(EVALUATION, samples=[], figures=[])).text
    assert "rewrite: helpful -0.112" in text
    assert "gate" not in text


def test_the_dark_page_replaces_the_plots_ink_grid_and_captions(page: str) -> None:
    for colour in (INK, MUTED, GRID):
        assert f'figure svg [fill="{colour}"]' in page
        assert f'="{colour}"' in page.split("</style>")[1]


def test_figures_without_data_are_left_out() -> None:
    bare = {key: value for key, value in EVALUATION.items() if key not in {"reward_model", "few_shot"}}
    assert [figure.name for figure in draw_figures(bare, {})] == ["axes", "win_rate_by_kind", "alignment_tax"]
    names = {figure.name for figure in draw_figures(EVALUATION, SERIES)}
    assert names >= {
        "reward_accuracy",
        "reward_reliability",
        "reward_by_length_gap",
        "reward_accuracy_over_steps",
        "reward_against_kl",
        "loss",
    }


def test_one_model_alone_still_makes_a_page() -> None:
    alone: dict[str, Any] = {
        "evaluation": {"base": MODELS["base"]},
        "win_rate": {},
        "by_kind": {"chat": {"base": MODELS["base"], "win_rate": {}}},
    }
    page = report_html(alone, samples=[], figures=draw_figures(alone, {}))
    assert outline(page).open == []
    assert "Base" in page
    assert "Supervised" not in page


@pytest.mark.parametrize(
    ("won", "words"),
    [
        (estimate(0.6), "beats the supervised one: it wins 60.0 % of 600"),
        (estimate(0.51), "is not surely better"),
        (estimate(0.4), "is worse than"),
    ],
)
def test_the_first_sentence_claims_no_more_than_the_interval_allows(won: dict[str, float], words: str) -> None:
    record = {**EVALUATION, "win_rate": {**EVALUATION["win_rate"], "ppo_vs_supervised": won}}
    assert words in summary_sentence(record)


def test_the_same_evaluation_gives_the_same_page(page: str) -> None:
    again = report_html(
        EVALUATION,
        samples=SAMPLES,
        figures=draw_figures(EVALUATION, SERIES),
        mistakes=MISTAKES,
        seconds={"base": 182.4},
        verdict=VERDICT,
        facts={"Data": "the <tiny> world"},
    )
    assert page == again
    assert not re.search(r"\d{4}-\d\d-\d\d", page)
