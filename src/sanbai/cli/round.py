"""`sanbai round`: turn the wheel."""

from __future__ import annotations

from pathlib import Path

import click

from sanbai.cli.options import json_option, open_job, open_workspace, print_record, workspace_options


@click.group(help="Turn the wheel: status, run, promote, rollback.")
def command() -> None:
    """Group."""


@command.command()
@workspace_options
@json_option
def status(workspace: Path, database: str, *, as_json: bool) -> None:
    """List the rounds with state, verdict and the model that serves."""
    from sanbai.cli.stores import open_store
    from sanbai.feedback.registry import list_rounds, served

    store = open_store(open_workspace(workspace, database))
    rounds, deployment = list_rounds(store), served(store)
    for known in rounds:
        state = "promoted" if known.state == "serving" else known.state.replace("_", " ")
        override = known.events[-1].reason if state == "promoted" and not known.verdict.get("promote", True) else ""
        against = f"; promoted all the same: {override}" if override else ""
        click.echo(f"round {known.n}: {state:<11} {known.verdict.get('summary', '')}{against}")
    click.echo(
        f"serving: {deployment.model if deployment else 'nothing yet; `sanbai quickstart` makes the first model'}"
    )
    if as_json:
        rows = [{"n": known.n, "state": known.state, "verdict": dict(known.verdict)} for known in rounds]
        print_record({"rounds": rows, "served": deployment.model if deployment else ""})


@command.command("run")
@click.option("--simulated-labelers", type=click.IntRange(0), default=0, help="How many to ask beside people.")
@click.option("--recipe", default="", help="A recipe instead of the first round's.")
@workspace_options
@json_option
def run(simulated_labelers: int, recipe: str, workspace: Path, database: str, *, as_json: bool) -> None:
    """Run the next round on everything people said, or continue a stopped one."""
    from sanbai.cli.pipelines import next_round, run_round, workspace_recipe
    from sanbai.cli.recipes import find_recipe, read_recipe
    from sanbai.cli.stores import open_store
    from sanbai.serving.recipe import ServeRecipe

    space = open_workspace(workspace, database)
    resolved, serve = read_recipe(find_recipe(recipe)) if recipe else (workspace_recipe(space), ServeRecipe())
    number = next_round(open_store(space))
    with open_job(space) as job:
        record = run_round(job, resolved, serve, num_asked=simulated_labelers, number=number)
    click.echo(f"round {number} {record['verdict']['summary']}")
    click.echo(f"serving: {record['served']}; report: {record['report']}")
    if as_json:
        print_record(record)


@command.command()
@click.argument("number", type=click.IntRange(1))
@click.option("--override", default="", metavar="REASON", help="Why, where the gate has refused; kept on record.")
@workspace_options
def promote(number: int, override: str, workspace: Path, database: str) -> None:
    """Let the policy of round NUMBER serve."""
    from sanbai.cli.stores import open_store
    from sanbai.rounds.promotion import promote as promote_round

    store = open_store(open_workspace(workspace, database))
    promote_round(store, number, actor="command line", override_reason=override)
    click.echo(f"serving: policy-{number}")


@command.command()
@workspace_options
def rollback(workspace: Path, database: str) -> None:
    """Bring back the model that served before."""
    from sanbai.cli.stores import open_store
    from sanbai.rounds.promotion import rollback as roll_back

    store = open_store(open_workspace(workspace, database))
    click.echo(f"serving: {roll_back(store, actor='command line').model}")
