"""`sanbai quickstart`: make an assistant from nothing on the tiny world, show what came of it, serve it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sanbai.cli.options import json_option, open_job, open_workspace, print_record, workspace_options


@click.command(help="Make an assistant from nothing on the tiny world, then serve it.")
@click.option("--seed", type=click.IntRange(0), default=None, help="Instead of the recipe's.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Instead of the recipe's; 8300 if none says.")
@click.option("--recipe", default="quickstart", show_default=True, help="A recipe file, or the name of one that ships.")
@click.option("--no-serve", is_flag=True, help="End after the first round's report.")
@workspace_options
@json_option
def command(
    seed: int | None, port: int | None, recipe: str, workspace: Path, database: str, *, no_serve: bool, as_json: bool
) -> None:
    """Run the whole recipe; give the command again to continue a stopped one."""
    from sanbai.cli.pipelines import run_recipe
    from sanbai.cli.recipes import find_recipe, read_recipe
    from sanbai.cli.serve import serve_workspace, take_port

    resolved, serve = read_recipe(find_recipe(recipe), seed=seed)
    listener = None if no_serve else take_port(serve, port)
    space = open_workspace(workspace, database)
    with open_job(space) as job:
        record = run_recipe(job, resolved, serve, Path())
    _show(record)
    if as_json:
        print_record(record)
    if listener is not None:
        serve_workspace(space, serve, listener)


def _show(record: dict[str, Any]) -> None:
    """Print the table, the sample conversations and the verdict to standard error: talk, not the result."""
    from rich.console import Console
    from rich.markup import escape

    from sanbai.evaluation.table import terminal_table
    from sanbai.evaluation.theme import model_label

    console = Console(stderr=True, highlight=False)
    stages = {"base": "pretrain", "supervised": "supervise", "ppo": "ppo"}
    console.print(terminal_table(record, seconds={model: record["seconds"][stage] for model, stage in stages.items()}))
    for sample in record["samples"]:
        console.print(f"\n[bold]{escape(sample['messages'][-1]['content'])}[/bold]")
        for model, answer in sample["answers"].items():
            console.print(f"  [dim]{model_label(model):<11}[/dim]{escape(answer['answer'])}")
    verdict = record["verdict"]
    console.print(f"\nThe gate {'promotes' if verdict['promote'] else 'refuses'} the practised model.")
    for check in verdict["checks"]:
        if not check["passed"]:
            console.print(f"  {check['name']} {check['found']}, wanted {check['wanted']}", markup=False)
    console.print(f"{record['served']} serves. The whole report: {record['report']}")
