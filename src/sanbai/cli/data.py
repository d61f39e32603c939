"""`sanbai data`: build a corpus, look into it, write out the tiny world."""

from __future__ import annotations

from pathlib import Path

import click

from sanbai.cli.options import data_option, json_option, open_job, open_workspace, print_record, workspace_options


@click.group(help="Build and look into a corpus.")
def command() -> None:
    """Group."""


@command.command()
@click.argument("recipe")
@data_option
@workspace_options
@json_option
def build(recipe: str, data: Path, workspace: Path, database: str, *, as_json: bool) -> None:
    """Collect, clean and split the documents of RECIPE, and print what each rule dropped."""
    from sanbai.cli.recipes import find_recipe, read_recipe
    from sanbai.rounds.material import open_material
    from sanbai.rounds.pipeline import Pipeline

    resolved, _ = read_recipe(find_recipe(recipe))
    with open_job(open_workspace(workspace, database)) as job:
        corpus = Pipeline(job, resolved, open_material(resolved, data)).corpus()
    for name, value in corpus.metrics.items():
        click.echo(f"{name:<32} {value}")
    click.echo(corpus.path)
    if as_json:
        print_record({"artifact": corpus.name, "metrics": dict(corpus.metrics)})


@command.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--megabytes", type=click.FloatRange(0.001, 1000), default=20.0, show_default=True)
def world(out: Path, seed: int, megabytes: float) -> None:
    """Write documents of the tiny world to OUT (.jsonl or .jsonl.gz), the truth about their dirt in `planted`."""
    from sanbai.foundation.errors import UsageError
    from sanbai.foundation.files import JsonlWriter, explain_disk_errors
    from sanbai.world.documents import documents
    from sanbai.world.recipe import WorldRecipe
    from sanbai.world.village import make_village

    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder; make it, or name another place for {out.name}")
    village = make_village(seed, WorldRecipe())
    count = 0
    with explain_disk_errors(out), JsonlWriter(out) as writer:
        for document in documents(village, seed, num_bytes=int(megabytes * 1e6)):
            writer.write({**document.row, "planted": document.dirt})
            count += 1
    click.echo(f"{out}: {count} documents")
