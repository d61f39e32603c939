"""`report.html` of a run on people's own files, and its table for a terminal."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from sanbai.evaluation.figures import Figure
from sanbai.evaluation.files_figures import reader_label, reader_rows
from sanbai.evaluation.report import figures_section, footer, page, samples_section
from sanbai.evaluation.table import Cell, duration, number_cell, prose, share_cell, table_cell

READING_HEADINGS = ("Bits per byte", "Second judge", "Reward", "KL", "Time")


def files_report_html(
    evaluation: Mapping[str, Any],
    *,
    samples: Sequence[Mapping[str, Any]],
    figures: Sequence[Figure],
    seconds: Mapping[str, float] | None = None,
    facts: Mapping[str, str] | None = None,
) -> str:
    """Return the page.

    Args:
        evaluation: the content of `evaluation.json`.
        samples: the content of `samples.json`.
        figures: from `draw_files_figures`.
        seconds: model -> how long its making took.
        facts: data, seed and machine, for the page's foot.
    """
    sections = [
        _summary(evaluation),
        _readers(evaluation, seconds or {}),
        figures_section(figures),
        _by_source(evaluation["reading"]),
        _accuracies(evaluation),
        samples_section(samples, evaluation["models"]),
        footer(facts or {}),
    ]
    return page(sections, title="Evaluation")


def files_terminal_table(evaluation: Mapping[str, Any], *, seconds: Mapping[str, float] | None = None) -> Table:
    """Return the main table for a terminal, intervals beneath their figures."""
    reading = evaluation["reading"]
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=f"{reading['num_documents']} held-out documents; judges' scores on held-out prompts; 95 % intervals "
        "in brackets",
        caption_justify="left",
        pad_edge=False,
    )
    table.add_column("", style="bold", no_wrap=True)
    for heading in READING_HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for name in reader_rows(reading):
        cells = _reader_cells(name, evaluation, seconds or {})
        stacked = [f"{cell.figure}\n[dim]\\[{cell.interval}][/dim]" if cell.interval else cell.figure for cell in cells]
        table.add_row(reader_label(name, reading), *stacked)
    return table


def files_summary(evaluation: Mapping[str, Any]) -> str:
    """Say in one sentence whether the base model reads better than counting does."""
    readers = evaluation["reading"]["bits_per_byte"]
    base, ngram = readers["base"], readers["ngram"]
    name = reader_label("ngram", evaluation["reading"])
    if base["high"] < ngram["low"]:
        verdict = "reads held-out text better than"
    elif base["mean"] < ngram["mean"]:
        verdict = "reads held-out text a little better than"
    else:
        verdict = "reads held-out text no better than"
    return f"The base model {verdict} a {name} model: {base['mean']:.3f} against {ngram['mean']:.3f} bits a byte."


def _summary(evaluation: Mapping[str, Any]) -> str:
    reward = evaluation["reward_model"]
    accuracy, longer = share_cell(reward["accuracy"]), share_cell(reward["longer_wins"])
    agreement = (
        f"The reward model orders {accuracy.figure} ({accuracy.interval} %) of {reward['num_pairs']} held-out pairs as "
        f"people did, where chance is 50 % and the longer answer wins {longer.figure}."
    )
    details = [agreement]
    for policy, words in (("ppo", "with pretraining text mixed in"), ("ppo_without_ptx", "without it")):
        tax = evaluation["alignment_tax"].get(f"{policy}_vs_supervised")
        figures = evaluation["practice"].get(policy)
        if tax and figures:
            gain = figures["judge_reward_gain"]
            details.append(
                f"Practice {words} changed the second judge's mean by {gain['mean']:+.3f} ({gain['low']:+.3f} to "
                f"{gain['high']:+.3f}) at {figures['kl']['mean']:.2f} nats a response, and the bits of held-out text "
                f"by {100 * tax['relative']['mean']:+.2f} %."
            )
    return (
        '<header>\n<p class="eyebrow">Sanbai · evaluation</p>\n'
        f'<h1>{prose(files_summary(evaluation))}</h1>\n<p class="lead">{prose(" ".join(details))}</p>\n</header>'
    )


def _readers(evaluation: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    reading = evaluation["reading"]
    head = "".join(f'<th scope="col">{heading}</th>' for heading in READING_HEADINGS)
    rows = "".join(
        f'<tr><th scope="row"><span class="dot {html.escape(name)}"></span>{html.escape(reader_label(name, reading))}'
        f"</th>{''.join(table_cell(cell) for cell in _reader_cells(name, evaluation, seconds))}</tr>"
        for name in reader_rows(reading)
    )
    sampling = evaluation["sampling"]
    note = (
        "95 % intervals beneath each figure; less is better for bits. "
        f"{reading['num_documents']} held-out documents, {reading['num_bytes']:,} bytes, from their beginnings. "
        "xz after the training text: what the held-out text adds to an archive of "
        f"{reading['xz']['training_bytes']:,} bytes. Judges' scores: held-out prompts, temperature "
        f"{sampling['temperature']:g}, at most {sampling['max_new_tokens']} tokens; 0 is the demonstrations' mean. "
        "KL to the supervised model, nats a response."
    )
    return (
        '<section class="card scroll">\n<table class="models">\n'
        f'<thead><tr><th scope="col">Reader</th>{head}</tr></thead>\n<tbody>{rows}</tbody>\n</table>\n'
        f'<p class="note">{prose(note)}</p>\n</section>'
    )


def _reader_cells(name: str, evaluation: Mapping[str, Any], seconds: Mapping[str, float]) -> list[Cell]:
    bits = reader_rows(evaluation["reading"])[name]
    exact = bits["low"] == bits["high"]
    figures = evaluation["practice"].get(name, {})
    return [
        Cell(f"{bits['mean']:.3f}") if exact else number_cell(bits, digits=3),
        *(
            number_cell(figures[figure], digits=2) if figure in figures else Cell("–")
            for figure in ("judge_reward", "reward", "kl")
        ),
        Cell(duration(seconds[name])) if name in seconds else Cell("–"),
    ]


def _by_source(reading: Mapping[str, Any]) -> str:
    readers = list(reading["bits_per_byte"])
    head = "".join(f'<th scope="col">{html.escape(reader_label(name, reading))}</th>' for name in readers)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(source)}</th><td class="muted">{found[readers[0]]["n"]}</td>'
        + "".join(f"<td>{found[name]['mean']:.3f}</td>" for name in readers)
        + "</tr>"
        for source, found in reading["by_source"].items()
    )
    return (
        '<section class="card scroll">\n<h2>Bits per byte by source</h2>\n<table class="kinds">\n'
        f'<thead><tr><th scope="col">Source</th><th scope="col">Documents</th>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody>\n</table>\n</section>"
    )


def _accuracies(evaluation: Mapping[str, Any]) -> str:
    judges = {"Reward model": evaluation["reward_model"], "Second judge": evaluation["judge"]}
    head = "".join(f'<th scope="col">{name}</th>' for name in judges)
    sources = evaluation["reward_model"]["by_source"]
    rows = "".join(
        f'<tr><th scope="row">{html.escape(source)}</th><td class="muted">{sources[source]["n"]}</td>'
        + "".join(table_cell(share_cell(found["by_source"][source])) for found in judges.values())
        + "</tr>"
        for source in sources
    )
    left_out = evaluation["reward_model"]["num_left_out"]
    longer = share_cell(evaluation["reward_model"]["longer_wins"])
    note = (
        f"Chance is 50 %; the longer answer wins {longer.figure} ({longer.interval} %). Intervals by prompt. "
        f"{left_out} pairs with an answer longer than the reward models read were left out."
    )
    return (
        '<section class="card scroll">\n<h2>Agreement with held-out people, by source</h2>\n<table class="kinds">\n'
        f'<thead><tr><th scope="col">Source</th><th scope="col">Prompts</th>{head}</tr></thead>\n'
        f'<tbody>{rows}</tbody>\n</table>\n<p class="note">{prose(note)}</p>\n</section>'
    )
