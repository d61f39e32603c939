"""`sanbai lab`: reproduce a published phenomenon in minutes, with its control."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sanbai.cli.options import json_option, open_job, open_workspace, print_record, workspace_options

if TYPE_CHECKING:
    from sanbai.foundation.stage import Job


@click.group(help="Reproduce published phenomena in small runs, each with a control.")
def command() -> None:
    """Group."""


@command.command("list")
def list_phenomena() -> None:
    """Name every phenomenon and what it claims."""
    from sanbai.lab.registry import KNOWN

    for name, phenomenon in KNOWN.items():
        click.echo(f"{name:<22} {phenomenon.claim}")


@command.command()
@click.argument("name")
@click.option("--seeds", type=click.IntRange(1, 100), default=None, help="Number of trials; as a rule 3.")
@click.option("--first-seed", type=click.IntRange(1, 10**6), default=1, show_default=True, help="The others follow it.")
@click.option("--threads", type=click.IntRange(1, 1024), default=2, show_default=True, help="Of the CPU.")
@click.option(
    "--recipe", default="quickstart", show_default=True, help="Whose assistants are measured, where NAME is about them."
)
@workspace_options
@json_option
def run(
    name: str,
    seeds: int | None,
    first_seed: int,
    threads: int,
    recipe: str,
    workspace: Path,
    database: str,
    *,
    as_json: bool,
) -> None:
    """Measure NAME; lab/NAME.json and lab/NAME.svg of the workspace hold the result. A stopped run continues.

    What each seed gave is kept in lab/NAME-SEED.json. These files may come from other machines: copied into the lab
    folder of a workspace, they are not measured again.
    """
    with open_job(open_workspace(workspace, database)) as job:
        record = _measure(job, name, seeds, first_seed, threads, recipe)
    for figure, mean in record["means"].items():
        values = ", ".join(f"{trial[figure]:.3f}" for trial in record["trials"].values())
        click.echo(f"{figure:<60} {mean:.3f} ± {record['spreads'][figure]:.3f}  ({values})")
    if as_json:
        print_record(record)


def _measure(job: Job, name: str, num_seeds: int | None, first_seed: int, threads: int, recipe: str) -> dict[str, Any]:
    """Return the record of a phenomenon, whichever kind it is of."""
    from sanbai.cli.recipes import find_recipe, read_recipe
    from sanbai.foundation.device import Compute, apply_compute
    from sanbai.foundation.errors import UnknownNameError
    from sanbai.lab.assistants import open_assistants
    from sanbai.lab.registry import EVIDENCE, KNOWN, PHENOMENA
    from sanbai.lab.trials import measure_seeds, run_trials

    if name not in KNOWN:
        raise UnknownNameError(f"{name}: no such phenomenon; known: {', '.join(KNOWN)}")
    seeds = range(first_seed, first_seed + (num_seeds or KNOWN[name].num_seeds))
    if name in PHENOMENA:
        compute = Compute(num_threads=threads)
        apply_compute(compute)
        return run_trials(job, PHENOMENA[name], seeds=seeds, compute=compute)
    resolved, _ = read_recipe(find_recipe(recipe))
    resolved = resolved.model_copy(update={"compute": resolved.compute.model_copy(update={"num_threads": threads})})
    apply_compute(resolved.compute)
    setting = resolved.model_dump(mode="json", exclude={"seed": True, "compute": {"num_threads"}})
    return measure_seeds(job, EVIDENCE[name], open_assistants(job, resolved), setting=setting, seeds=seeds)
