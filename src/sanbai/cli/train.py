"""`sanbai train`: one training stage of a recipe, and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from sanbai.foundation.artifacts import Artifact
#: Ways to learn from rankings; they want a round's, or those of files.
FROM_RANKINGS = ("direct", "reject")


@click.command(help="Run one training stage of a recipe and what it needs.")
@click.argument("stage", type=click.Choice(["pretrain", "supervise", "classify", "distill", *FROM_RANKINGS]))
@click.argument("recipe")
@data_option
@click.option("--seed", type=int, default=None, help="Instead of the recipe's.")
@start_option
@click.option("--name", default="", help="Register the model under this name.")
@workspace_options
@json_option
def command(
    stage: str,
    recipe: str,
    data: Path,
    seed: int | None,
    start: str,
    name: str,
    workspace: Path,
    database: str,
    *,
    as_json: bool,
) -> None:
    """Run RECIPE up to STAGE. Reward models and PPO's policies are made by `sanbai round run`."""
    from sanbai.cli.pipelines import train_from_rankings
    from sanbai.cli.recipes import find_recipe, read_recipe
    from sanbai.cli.stores import check_name, open_store, register, resolve_model
    from sanbai.foundation.device import apply_compute
    from sanbai.foundation.errors import RecipeError
    from sanbai.rounds.material import open_material
    from sanbai.rounds.pipeline import Pipeline, check_start
    from sanbai.training.classify import classify_misfit
    from sanbai.training.distill import distill_misfit

    if start and stage == "pretrain":
        raise click.UsageError("--start is for later stages: pretraining begins from random weights")
    resolved, _ = read_recipe(find_recipe(recipe), seed=seed)
    if stage == "classify" and (problem := classify_misfit(resolved.classify, resolved.model, resolved.adapter)):
        raise RecipeError(f"{recipe}: {problem}")
    if stage == "distill" and not start and (problem := distill_misfit(resolved.model)):
        raise RecipeError(f"{recipe}: {problem}")
    space = open_workspace(workspace, database)
    if stage in FROM_RANKINGS:
        with open_job(space) as job:
            model = train_from_rankings(job, resolved, data, stage, start=start, name=name)
        report(model, as_json=as_json)
        return
    store = open_store(space)
    check_name(name)
    begin = resolve_model(store, space, start) if start else None
    if begin is not None and stage == "supervise":
        check_start(begin, resolved, practises=False)
    apply_compute(resolved.compute)
    with open_job(space) as job:
        pipeline = Pipeline(job, resolved, open_material(resolved, data), begin)
        corpus = pipeline.corpus()
        tokenizer = pipeline.tokenizer(corpus)
        shards = pipeline.shards(corpus, tokenizer)
        model = pipeline.base(tokenizer, shards)
        if stage == "supervise":
            model = pipeline.supervised(model, shards, pipeline.demonstrations())
        if stage == "classify":
            model = pipeline.classifier(model, pipeline.labeled())
        if stage == "distill":
            model = pipeline.student(model, shards)
    if name:
        register(store, name, "base" if stage in {"pretrain", "distill"} else "supervised", model, parent=start)
    report(model, as_json=as_json)


def report(model: Artifact, *, as_json: bool) -> None:
    """Print where a model lies and its numbers."""
    click.echo(f"{model.path} {dict(model.metrics)}")
    if as_json:
        print_record({"artifact": model.name, "metrics": dict(model.metrics)})
