"""`report.html`: one page that says what was made, how good it is, and how sure that is.

The page stands alone: drawings and styles are inside it, it has no script and asks for nothing. Every text that comes
from a model, a person or a file is escaped. It follows the reader's choice of light or dark.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from typing import Any

from sanbai.evaluation.figures import Figure
from sanbai.evaluation.reward_section import mistakes_section, reward_section
from sanbai.evaluation.table import HEADINGS, model_rows, number_cell, prose, share_cell, table_cell
from sanbai.evaluation.theme import GRID, INK, MUTED, PAPER, model_label

# What a plot's ink, captions, grid and paper become on a dark page.
_DARK = {INK: "#e8ebef", MUTED: "#9ba5b3", GRID: "#2c333d", PAPER: "transparent"}


def report_html(
    evaluation: Mapping[str, Any],
    *,
    samples: Sequence[Mapping[str, Any]],
    figures: Sequence[Figure],
    mistakes: Sequence[Mapping[str, Any]] = (),
    seconds: Mapping[str, float] | None = None,
    verdict: Mapping[str, Any] | None = None,
    facts: Mapping[str, str] | None = None,
    title: str = "Evaluation",
) -> str:
    """Return the page.

    Args:
        evaluation: the content of `evaluation.json`.
        samples: the content of `samples.json`: `{"kind", "task", "messages", "answers": {model: {"answer", ...}}}`.
        figures: from `figures.draw_figures`.
        mistakes: from `mistakes.confident_mistakes`.
        seconds: model -> how long its making took.
        verdict: the gate's: `{"promote", "checks": [{"name", "passed", "found", "wanted"}], "worse"}`.
        facts: data, seed and machine, for the page's foot.
        title: of the page.
    """
    sections = [
        _summary(evaluation),
        _main_table(evaluation, seconds),
        _verdict(verdict) if verdict else _worse(evaluation.get("worse", [])),
        figures_section(figures),
        _by_kind(evaluation),
        reward_section(evaluation.get("reward_model")),
        mistakes_section(mistakes),
        samples_section(samples, list(evaluation["evaluation"])),
        footer(facts or {}),
    ]
    return page(sections, title=title)


def page(sections: Sequence[str], *, title: str) -> str:
    """Return sections of HTML as a whole page with the one look; empty ones are left out."""
    style = resources.files("sanbai.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)} · Sanbai</title>\n<style>\n{style}\n{_dark_plots()}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def summary_sentence(evaluation: Mapping[str, Any]) -> str:
    """Say in one sentence whether the last model is better than the one before it."""
    models = list(evaluation["evaluation"])
    if len(models) < 2:
        return f"The {model_label(models[0]).lower()} model was evaluated alone."
    latest, before = models[-1], models[-2]
    won = evaluation["win_rate"][f"{latest}_vs_{before}"]
    share = f"{100 * won['mean']:.1f} % of {won['n']} held-out prompts"
    ours, theirs = model_label(latest).lower(), model_label(before).lower()
    if won["low"] > 0.5:
        return f"The {ours} model beats the {theirs} one: it wins {share}."
    if won["high"] < 0.5:
        return f"The {ours} model is worse than the {theirs} one: it wins only {share}."
    return f"The {ours} model is not surely better than the {theirs} one: it wins {share}."


def _summary(evaluation: Mapping[str, Any]) -> str:
    models = list(evaluation["evaluation"])
    contest = f"{models[-1]}_vs_{models[-2]}" if len(models) > 1 else ""
    details = []
    if contest:
        won = share_cell(evaluation["win_rate"][contest])
        details.append(f"The win rate's 95 % interval is {won.interval} %, ties counted half.")
    if kl := evaluation.get("kl"):
        details.append(f"Practice moved the policy by {kl['mean']:.2f} nats a response.")
    if tax := evaluation.get("alignment_tax", {}).get(contest):
        relative = tax["relative"]
        details.append(
            f"Reading held-out text costs it {100 * relative['mean']:+.1f} % bits "
            f"({100 * relative['low']:+.1f} to {100 * relative['high']:+.1f} %)."
        )
    if reward := evaluation.get("reward_model"):
        text = f"The reward model orders {share_cell(reward['accuracy']).figure} of held-out pairs as labelers did"
        best = reward.get("best_possible")
        if best is not None:
            level = best["mean"] if isinstance(best, Mapping) else best
            text += f", where {100 * level:.1f} % is the best their noise allows"
        details.append(text + ".")
    return (
        '<header>\n<p class="eyebrow">Sanbai · evaluation</p>\n'
        f"<h1>{prose(summary_sentence(evaluation))}</h1>\n"
        f'<p class="lead">{prose(" ".join(details))}</p>\n</header>'
    )


def _main_table(evaluation: Mapping[str, Any], seconds: Mapping[str, float] | None) -> str:
    head = "".join(f'<th scope="col">{heading}</th>' for heading in HEADINGS)
    rows = [
        f'<tr><th scope="row"><span class="dot {html.escape(row.name)}"></span>{html.escape(row.label)}</th>'
        + "".join(table_cell(cell) for cell in row.cells)
        + "</tr>"
        for row in model_rows(evaluation, seconds=seconds)
    ]
    sampling = evaluation.get("sampling")
    setting = ""
    if sampling:
        setting = f"temperature {sampling['temperature']:g}, top-p {sampling['top_p']:g}, "
        setting += f"at most {sampling['max_new_tokens']} tokens"
    note = "95 % intervals beneath each figure. Win rate: gold utility against the row above, ties counted half. "
    note += "More is better, but for bits per byte. " + (f"Every model sampled alike: {setting}." if setting else "")
    return (
        '<section class="card scroll">\n<table class="models">\n'
        f'<thead><tr><th scope="col">Model</th>{head}</tr></thead>\n<tbody>{"".join(rows)}</tbody>\n</table>\n'
        f'<p class="note">{prose(note)}</p>\n</section>'
    )


def _verdict(verdict: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td class="{"pass" if check["passed"] else "fail"}">{"passed" if check["passed"] else "failed"}</td>'
        f"<td>{html.escape(check['name'])}</td><td>{html.escape(check['found'])}</td>"
        f"<td>{html.escape(check['wanted'])}</td></tr>"
        for check in verdict["checks"]
    )
    outcome = "pass" if verdict["promote"] else "fail"
    word = "Promoted" if verdict["promote"] else "Refused"
    failed = [f"{one['name']} {one['found']}, wanted {one['wanted']}" for one in verdict["checks"] if not one["passed"]]
    reason = f"Failed: {'; '.join(failed)}." if failed else "Every check passed."
    if verdict["worse"]:
        reason += f" Worse than before: {'; '.join(verdict['worse'])}."
    return (
        f'<section class="card verdict {outcome}">\n<h2>{word} by the gate</h2>\n<p>{html.escape(reason)}</p>\n'
        '<details><summary>Every check</summary><table><thead><tr><th scope="col">Outcome</th><th scope="col">Check'
        '</th><th scope="col">Found</th><th scope="col">Wanted</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></details>\n</section>"
    )


def _worse(worse: Sequence[str]) -> str:
    if not worse:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in worse)
    return f'<section class="card verdict fail">\n<h2>What became worse</h2>\n<ul>{items}</ul>\n</section>'


def figures_section(figures: Sequence[Figure]) -> str:
    """Return the drawings with their explanations."""
    drawn = "\n".join(
        f'<figure class="card{" wide" if figure.wide else ""}">{figure.svg}'
        f"<figcaption>{prose(figure.explanation)}</figcaption></figure>"
        for figure in figures
    )
    return f'<section class="figures">\n{drawn}\n</section>'


def _by_kind(evaluation: Mapping[str, Any]) -> str:
    models = list(evaluation["evaluation"])
    contests = [f"{later}_vs_{earlier}" for earlier, later in pairwise(models)]
    groups = "".join(
        f'<th colspan="{len(models)}" scope="colgroup">{name}</th>' for name in ("Helpful", "Gold utility")
    )
    names = "".join(f'<th scope="col">{html.escape(model_label(model))}</th>' for model in models) * 2
    against = "".join(f'<th scope="col">{html.escape(_contest_label(contest))}</th>' for contest in contests)
    rows = []
    for kind, scores in evaluation["by_kind"].items():
        cells = [f"<td>{100 * scores[model]['helpful']['mean']:.0f} %</td>" for model in models]
        cells += [f"<td>{scores[model]['gold_utility']['mean']:.2f}</td>" for model in models]
        cells += [_contest_cell(scores["win_rate"][contest]) for contest in contests]
        asked = scores[models[0]]["helpful"]["n"]
        rows.append(f'<tr><th scope="row">{html.escape(kind)}</th><td class="muted">{asked}</td>{"".join(cells)}</tr>')
    win_rate = f'<th colspan="{len(contests)}" scope="colgroup">Win rate</th>' if contests else ""
    return (
        '<section class="card scroll">\n<h2>By kind of prompt</h2>\n<table class="kinds">\n'
        f'<thead><tr><th></th><th></th>{groups}{win_rate}</tr>\n<tr><th scope="col">Kind</th><th scope="col">Prompts'
        f"</th>{names}{against}</tr></thead>\n<tbody>{''.join(rows)}</tbody>\n</table>\n"
        '<p class="note">Win rates in colour lie beyond one half with their whole 95 % interval.</p>\n</section>'
    )


def samples_section(samples: Sequence[Mapping[str, Any]], models: Sequence[str]) -> str:
    """Return conversations with every model's answer side by side."""
    if not samples:
        return ""
    conversations = []
    for sample in samples:
        turns = "".join(
            f'<div class="turn {html.escape(turn["role"])}"><p>{html.escape(turn["content"])}</p></div>'
            for turn in sample["messages"]
        )
        answers = "".join(_answer(model, sample["answers"][model]) for model in models if model in sample["answers"])
        label = f"{sample['kind']} · {sample['task'].replace('_', ' ')}"
        conversations.append(
            f'<article class="card sample"><p class="eyebrow">{html.escape(label)}</p>'
            f'<div class="prompt">{turns}</div><div class="answers">{answers}</div></article>'
        )
    return (
        "<section>\n<h2>The same question to every model</h2>\n"
        '<p class="note">The first held-out prompts of their tasks, answered once by each model; not chosen.</p>\n'
        f"{''.join(conversations)}\n</section>"
    )


def _answer(model: str, answer: Mapping[str, Any]) -> str:
    marks = "".join(_mark(axis, float(answer[axis])) for axis in ("helpful", "honest", "harmless") if axis in answer)
    text = str(answer["answer"]).strip()
    said = html.escape(text) if text else '<span class="muted">(nothing)</span>'
    return (
        f'<div class="answer"><h3><span class="dot {html.escape(model)}"></span>{html.escape(model_label(model))}</h3>'
        f'<p>{said}</p><p class="marks">{marks}</p></div>'
    )


def _mark(axis: str, value: float) -> str:
    word, kind = (axis, "pass") if value >= 0.5 else (f"not {axis}", "fail")
    return f'<span class="{kind}">{word}</span>'


def footer(facts: Mapping[str, str]) -> str:
    """Return what the page says of data, seed and machine."""
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return f"<footer>\n<dl>{rows}</dl>\n</footer>" if rows else ""


def _contest_cell(estimate: Mapping[str, float]) -> str:
    outcome = "pass" if estimate["low"] > 0.5 else "fail" if estimate["high"] < 0.5 else ""
    cell = number_cell(
        {end: 100 * estimate[end] for end in ("mean", "low", "high")},
        digits=0,
    )
    return f'<td class="{outcome}">{cell.figure} %<span class="interval">{cell.interval}</span></td>'


def _contest_label(contest: str) -> str:
    later, earlier = contest.split("_vs_")
    return f"{model_label(later)} vs {model_label(earlier).lower()}"


def _dark_plots() -> str:
    """Return rules that give the plots' ink, grid and paper their dark colours."""
    rules = "".join(
        f'  figure svg [fill="{light}"] {{ fill: {dark}; }}\n  figure svg [stroke="{light}"] {{ stroke: {dark}; }}\n'
        for light, dark in _DARK.items()
    )
    return f"@media (prefers-color-scheme: dark) {{\n{rules}}}\n"
