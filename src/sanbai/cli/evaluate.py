"""`sanbai evaluate`: measure models side by side on held-out prompts and text."""

from __future__ import annotations

from pathlib import Path

import click

from sanbai.cli.options import json_option, open_job, open_workspace, print_record, workspace_options


@click.command(help="Measure models on held-out prompts and text.")
@click.argument("names", nargs=-1, required=True)
@workspace_options
@json_option
def command(names: tuple[str, ...], workspace: Path, database: str, *, as_json: bool) -> None:
    """Compare the models NAMES, in their order, each with the one before it."""
    from rich.console import Console

    from sanbai.cli.pipelines import evaluate_named
    from sanbai.evaluation.table import terminal_table

    with open_job(open_workspace(workspace, database)) as job:
        report, evaluation = evaluate_named(job, names)
    Console().print(terminal_table(evaluation))
    click.echo(report.path / "report.html")
    if as_json:
        print_record(evaluation)
