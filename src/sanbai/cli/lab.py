"""`sanbai lab`: reproduce a published phenomenon in minutes, with its control."""

from __future__ import annotations

from pathlib import Path

import click

from sanbai.cli.options import json_option, open_job, open_workspace, print_record, workspace_options


@click.group(help="Reproduce published phenomena in small runs, each with a control.")
def command() -> None:
    """Group."""


@command.command("list")
def list_phenomena() -> None:
    """Name every phenomenon and what it claims."""
    from sanbai.lab.registry import PHENOMENA

    for name, phenomenon in PHENOMENA.items():
        click.echo(f"{name:<20} {phenomenon.claim}")


@command.command()
@click.argument("name")
@click.option("--seeds", type=click.IntRange(1, 100), default=None, help="Trials, seeds 1, 2, ...; as a rule 3.")
@click.option("--threads", type=click.IntRange(1, 1024), default=2, show_default=True, help="Of the CPU.")
@workspace_options
@json_option
def run(name: str, seeds: int | None, threads: int, workspace: Path, database: str, *, as_json: bool) -> None:
    """Measure NAME; lab/NAME.json and lab/NAME.svg of the workspace hold the result. A stopped run continues."""
    from sanbai.foundation.device import Compute, apply_compute
    from sanbai.foundation.errors import UnknownNameError
    from sanbai.lab.registry import PHENOMENA
    from sanbai.lab.trials import run_trials

    if name not in PHENOMENA:
        raise UnknownNameError(f"{name}: no such phenomenon; known: {', '.join(PHENOMENA)}")
    compute = Compute(num_threads=threads)
    apply_compute(compute)
    with open_job(open_workspace(workspace, database)) as job:
        trials = range(1, seeds + 1) if seeds else None
        record = run_trials(job, PHENOMENA[name], seeds=trials, compute=compute)
    for figure, mean in record["means"].items():
        values = ", ".join(f"{trial[figure]:.3f}" for trial in record["trials"].values())
        click.echo(f"{figure:<48} {mean:.3f} ± {record['spreads'][figure]:.3f}  ({values})")
    if as_json:
        print_record(record)
