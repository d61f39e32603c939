"""`sanbai run`: start a recipe's whole pipeline; list and show runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sanbai.cli.options import (
    data_option,
    json_option,
    open_job,
    open_workspace,
    print_record,
    start_option,
    workspace_options,
)


@click.group(help="Start a recipe's whole pipeline; list and show runs.")
def command() -> None:
    """Group."""


@command.command()
@click.argument("recipe")
@data_option
@click.option("--seed", type=int, default=None, help="Instead of the recipe's.")
@start_option
@click.option("--name", default="", help="On files: register the models as NAME-supervised, NAME-ppo, ...")
@workspace_options
@json_option
def start(
    recipe: str, data: Path, seed: int | None, start: str, name: str, workspace: Path, database: str, *, as_json: bool
) -> None:
    """Run every stage of RECIPE, from documents to the report; give it again to continue a stopped run."""
    from sanbai.cli.pipelines import run_recipe
    from sanbai.cli.recipes import find_recipe, read_recipe

    resolved, serve = read_recipe(find_recipe(recipe), seed=seed)
    with open_job(open_workspace(workspace, database)) as job:
        record = run_recipe(job, resolved, serve, data, start=start, name=name)
    _show(record)
    if as_json:
        print_record(record)


def _show(record: dict[str, Any]) -> None:
    """Print the table and the report's place to standard error: talk, not the result."""
    from rich.console import Console

    from sanbai.evaluation.files_report import files_terminal_table
    from sanbai.evaluation.table import terminal_table

    seconds = record["seconds"]
    times = {**seconds, "base": seconds.get("pretrain", 0.0), "supervised": seconds["supervise"]}
    draw = files_terminal_table if "reading" in record else terminal_table
    console = Console(stderr=True)
    console.print(draw(record, seconds=times))
    console.print(f"report: {record['report']}", soft_wrap=True, highlight=False)


@command.command("list")
@workspace_options
@json_option
def list_(workspace: Path, database: str, *, as_json: bool) -> None:
    """List the runs of the workspace with stage, state and time."""
    from sanbai.foundation.run import read_run

    space = open_workspace(workspace, database)
    runs = [{"name": path.parent.name, **read_run(path.parent)} for path in space.runs.glob("*/run.json")]
    runs.sort(key=lambda run: str(run["started"]))
    for run in runs:
        click.echo(f"{run['name']:<28} {run['stage']:<16} {run['state']:<8} {run['seconds']:>8.1f} s  {run['started']}")
    if not runs:
        click.echo("no runs yet", err=True)
    if as_json:
        print_record(runs)


@command.command()
@click.argument("name")
@workspace_options
@json_option
def show(name: str, workspace: Path, database: str, *, as_json: bool) -> None:
    """Show a run's state and its last metrics."""
    from sanbai.foundation.errors import UnknownNameError
    from sanbai.foundation.run import read_metrics, read_run

    space = open_workspace(workspace, database)
    folders = {path.parent.name: path.parent for path in space.runs.glob("*/run.json")}
    found = [known for known in folders if known.startswith(name)]
    if name not in folders and len(found) != 1:
        raise UnknownNameError(f"{name}: {len(found)} runs begin so; see `sanbai run list`")
    folder = folders[name if name in folders else found[0]]
    metrics = read_metrics(folder)
    record = {"name": folder.name, **read_run(folder), "last": metrics[-1] if metrics else {}}
    for key, value in record.items():
        click.echo(f"{key:<10} {value}")
    if as_json:
        print_record(record)
