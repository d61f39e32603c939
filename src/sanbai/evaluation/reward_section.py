"""The parts of a report's page that say when the reward model may be trusted, and show where it may not."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from sanbai.evaluation.reward_plots import gap_label
from sanbai.evaluation.table import Cell, prose, share_cell, table_cell


def reward_section(reward_model: Mapping[str, Any] | None) -> str:
    """Return a reward model's accuracy by kind of prompt and by difference in length, and what disagreement tells.

    Args:
        reward_model: of `evaluation.json`; parts that it does not hold are left out.
    """
    if not reward_model:
        return ""
    parts = [
        _teachers(reward_model.get("teachers")),
        _by_kind(reward_model.get("by_kind", {})),
        _by_length_gap(reward_model.get("by_length_gap", [])),
        _disagreement(reward_model.get("disagreement")),
    ]
    if not any(parts):
        return ""
    return f'<section class="card scroll">\n<h2>When to trust the reward model</h2>\n{"".join(parts)}\n</section>'


def mistakes_section(mistakes: Sequence[Mapping[str, Any]]) -> str:
    """Return the reward model's surest mistakes as text."""
    if not mistakes:
        return ""
    shown = []
    for mistake in mistakes:
        turns = "".join(
            f'<div class="turn {html.escape(turn["role"])}"><p>{html.escape(turn["content"])}</p></div>'
            for turn in mistake["messages"]
        )
        labelers = f"{mistake['num_agreeing']} of {mistake['num_labelers']} labelers"
        answers = _answer(f"Chosen by {labelers}", mistake["chosen"]) + _answer(
            f"Preferred by the model, {100 * mistake['probability']:.0f} % sure", mistake["rejected"]
        )
        shown.append(
            f'<article class="card sample"><p class="eyebrow">{html.escape(mistake["kind"])}</p>'
            f'<div class="prompt">{turns}</div><div class="answers">{answers}</div></article>'
        )
    return (
        "<section>\n<h2>The reward model\u2019s surest mistakes</h2>\n"
        '<p class="note">Pairs of held-out labelers that it orders the other way with the greatest margin, at most one '
        f"a prompt.</p>\n{''.join(shown)}\n</section>"
    )


def _teachers(teachers: Mapping[str, Any] | None) -> str:
    """Say whose rankings taught the model; a model's are never passed over."""
    if not teachers:
        return ""
    counts = teachers["rankings"]
    text = f"Taught by {counts['person']} rankings of people and {counts['simulated']} of simulated labelers"
    text += f", and by {counts['model']} of a model." if counts["model"] else "; none is a model\u2019s."
    for name, estimate in teachers["model_agreement"].items():
        cell = share_cell(estimate)
        text += f" {name} orders {cell.figure} ({cell.interval} %) of this round\u2019s pairs as their labelers did."
    return f'<p class="note">{prose(text)}</p>'


def _by_kind(by_kind: Mapping[str, Mapping[str, float]]) -> str:
    rows = [(kind, estimate["n"], [share_cell(estimate)]) for kind, estimate in by_kind.items()]
    return _table(("Kind of prompt", "Prompts", "Pairs ordered as labelers did"), rows)


def _by_length_gap(bins: Sequence[Mapping[str, Any]]) -> str:
    names = ("accuracy", "longer_chosen", "shorter_chosen", "longer_wins")
    rows = [
        (gap_label(each), each["num_pairs"], [share_cell(each[name]) if name in each else Cell("–") for name in names])
        for each in bins
    ]
    headings = ("Difference in characters", "Pairs", "Ordered rightly", "Longer was chosen", "Shorter was chosen")
    return _table((*headings, "Preferring the longer"), rows)


def _disagreement(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    thirds = [share_cell(estimate).figure for estimate in found["accuracy_by_spread"]]
    text = (
        f"{found['num_models']} reward models, taught by different labelers: where they agree most, their mean orders "
        f"{thirds[0]} of pairs rightly, where least {thirds[-1]}."
    )
    if by_spread := found.get("error_by_spread"):
        by_margin = found["error_by_margin"]
        verdict = "predicts" if by_spread["low"] > 0.5 else "does not surely predict"
        text += (
            f" Their spread {verdict} errors: a wrong pair has the larger spread than a right one in "
            f"{share_cell(by_spread).figure} ({share_cell(by_spread).interval} %) of couples, where chance is 50 % and "
            f"a small margin alone finds {share_cell(by_margin).figure}."
        )
    return f'<p class="note">{prose(text)}</p>'


def _table(headings: Sequence[str], rows: Sequence[tuple[str, float, Sequence[Cell]]]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td class="muted">{number:.0f}</td>'
        f"{''.join(table_cell(cell) for cell in cells)}</tr>"
        for name, number, cells in rows
    )
    return f'<table class="kinds">\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>\n</table>\n'


def _answer(heading: str, text: str) -> str:
    return f'<div class="answer"><h3>{prose(heading)}</h3><p>{html.escape(text)}</p></div>'
