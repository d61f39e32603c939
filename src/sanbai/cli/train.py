"""`sanbai train`: one training stage of a recipe, and what it needs."""

from __future__ import annotations

from pathlib import Path

import click

from sanbai.cli.options import json_option, open_job, open_workspace, print_record, workspace_options


@click.command(help="Run one training stage of a recipe and what it needs.")
@click.argument("stage", type=click.Choice(["pretrain", "supervise", "classify"]))
@click.argument("recipe")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder of your files.")
@click.option("--seed", type=int, default=None, help="Instead of the recipe's.")
@workspace_options
@json_option
def command(
    stage: str, recipe: str, data: Path, seed: int | None, workspace: Path, database: str, *, as_json: bool
) -> None:
    """Run RECIPE up to STAGE. Reward models and policies come from rankings: see `sanbai round run`."""
    from sanbai.cli.recipes import find_recipe, read_recipe
    from sanbai.foundation.device import apply_compute
    from sanbai.foundation.errors import RecipeError
    from sanbai.rounds.material import open_material
    from sanbai.rounds.pipeline import Pipeline
    from sanbai.training.classify import classify_misfit

    resolved, _ = read_recipe(find_recipe(recipe), seed=seed)
    if stage == "classify" and (problem := classify_misfit(resolved.classify, resolved.model)):
        raise RecipeError(f"{recipe}: {problem}")
    apply_compute(resolved.compute)
    with open_job(open_workspace(workspace, database)) as job:
        pipeline = Pipeline(job, resolved, open_material(resolved, data))
        corpus = pipeline.corpus()
        tokenizer = pipeline.tokenizer(corpus)
        shards = pipeline.shards(corpus, tokenizer)
        model = pipeline.base(tokenizer, shards)
        if stage == "supervise":
            model = pipeline.supervised(model, shards, pipeline.demonstrations())
        if stage == "classify":
            model = pipeline.classifier(model, pipeline.labeled())
    click.echo(f"{model.path} {dict(model.metrics)}")
    if as_json:
        print_record({"artifact": model.name, "metrics": dict(model.metrics)})
