"""`sanbai tokenizer`: train one, and see what it makes of a text."""

from __future__ import annotations

from pathlib import Path

import click

from sanbai.cli.options import data_option, json_option, open_job, open_workspace, print_record, workspace_options


@click.group(help="Train a tokenizer; see what it makes of a text.")
def command() -> None:
    """Group."""


@command.command()
@click.argument("recipe")
@data_option
@workspace_options
@json_option
def train(recipe: str, data: Path, workspace: Path, database: str, *, as_json: bool) -> None:
    """Learn the vocabulary of RECIPE from its corpus."""
    from sanbai.cli.recipes import find_recipe, read_recipe
    from sanbai.rounds.material import open_material
    from sanbai.rounds.pipeline import Pipeline

    resolved, _ = read_recipe(find_recipe(recipe))
    with open_job(open_workspace(workspace, database)) as job:
        pipeline = Pipeline(job, resolved, open_material(resolved, data))
        tokenizer = pipeline.tokenizer(pipeline.corpus())
    click.echo(f"{tokenizer.path} {dict(tokenizer.metrics)}")
    if as_json:
        print_record({"artifact": tokenizer.name, "metrics": dict(tokenizer.metrics)})


@command.command()
@click.argument("text")
@click.option("--model", "name", default="served", show_default=True, help="A model or tokenizer by name.")
@workspace_options
@json_option
def encode(text: str, name: str, workspace: Path, database: str, *, as_json: bool) -> None:
    """Print the tokens of TEXT with their ids."""
    from sanbai.cli.stores import open_store, resolve_model
    from sanbai.data.vocabulary import load_tokenizer

    space = open_workspace(workspace, database)
    tokenizer = load_tokenizer(resolve_model(open_store(space), space, name))
    ids = tokenizer.encode(text)
    for token in ids:
        click.echo(f"{token:>7} {tokenizer.token_bytes(token).decode('utf-8', errors='backslashreplace')!r}")
    if as_json:
        print_record({"tokens": ids})
