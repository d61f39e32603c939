"""`sanbai train`: one training stage of a recipe, and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
    from sanbai.feedback.registry import ModelKind
    from sanbai.feedback.store import Store
    from sanbai.foundation.artifacts import Artifact
    from sanbai.rounds.pipeline import Pipeline
    from sanbai.rounds.recipe import Recipe

    Judges = tuple[Artifact, Artifact]

#: What a stage's model is registered as.
KINDS: dict[str, ModelKind] = {
    "pretrain": "base",
    "supervise": "supervised",
    "classify": "supervised",
    "distill": "base",
    "direct": "policy",
    "reject": "policy",
    "group": "policy",
    "expert-iteration": "policy",
    "self-judge": "policy",
}
#: Stages that learn from a round's rankings or those of files, or from the workspace's thumbs.
FROM_RANKINGS = ("direct", "self-judge")
#: Stages that answer prompts, and their sections: they start from a policy and need a reward model and a second judge.
PRACTICE: dict[str, Literal["reject", "group", "expert_iteration"]] = {
    "reject": "reject",
    "group": "group",
    "expert-iteration": "expert_iteration",
}


@click.command(help="Run one training stage of a recipe and what it needs.")
@click.argument("stage", type=click.Choice(list(KINDS)))
@click.argument("recipe")
@data_option
@click.option("--seed", type=int, default=None, help="Instead of the recipe's.")
@start_option
@click.option("--reward", default="", help="Practise against this reward model; the default is the newest round's.")
@click.option("--judge", default="", help="Let this second reward model watch the practice.")
@click.option("--name", default="", help="Register the model under this name.")
@workspace_options
@json_option
def command(
    stage: str,
    recipe: str,
    data: Path,
    seed: int | None,
    start: str,
    reward: str,
    judge: str,
    name: str,
    workspace: Path,
    database: str,
    *,
    as_json: bool,
) -> None:
    """Run RECIPE up to STAGE. Reward models and PPO's policies are made by `sanbai round run`."""
    from sanbai.cli.recipes import find_recipe, read_recipe
    from sanbai.cli.stores import check_name, open_store, register, resolve_judges, resolve_model
    from sanbai.foundation.device import apply_compute
    from sanbai.foundation.errors import RecipeError
    from sanbai.rounds.material import open_material
    from sanbai.rounds.pipeline import Pipeline
    from sanbai.rounds.stages.ancestry import check_start
    from sanbai.training.classify import classify_misfit
    from sanbai.training.direct import check_adapter
    from sanbai.training.distill import distill_misfit

    if start and stage == "pretrain":
        raise click.UsageError("--start is for later stages: pretraining begins from random weights")
    if (reward or judge) and stage not in PRACTICE:
        raise click.UsageError(f"--reward and --judge are for {', '.join(PRACTICE)}; leave them out")
    resolved, _ = read_recipe(find_recipe(recipe), seed=seed)
    if stage == "classify" and (problem := classify_misfit(resolved.classify, resolved.model, resolved.adapter)):
        raise RecipeError(f"{recipe}: {problem}")
    if stage == "distill" and not start and (problem := distill_misfit(resolved.model)):
        raise RecipeError(f"{recipe}: {problem}")
    if stage == "direct":
        check_adapter(resolved.adapter)
    space = open_workspace(workspace, database)
    store = open_store(space)
    check_name(name)
    begin = resolve_model(store, space, start) if start else None
    if begin is not None and stage == "supervise":
        check_start(begin, resolved, practises=False)
    judges = None
    if stage in PRACTICE:
        judges = resolve_judges(store, space, reward, judge, newest=resolved.material == "world")
        check_practice(resolved, stage, judges, begin)
    apply_compute(resolved.compute)
    with open_job(space) as job:
        model = make_model(Pipeline(job, resolved, open_material(resolved, data), begin), stage, store, judges)
    if name:
        snapshots = sorted(made.name for made in space.sources(model).values() if made.kind == "snapshot")
        register(store, name, KINDS[stage], model, parent=start, snapshots=snapshots)
    report(model, as_json=as_json)


def report(model: Artifact, *, as_json: bool) -> None:
    """Print where a model lies and its numbers."""
    click.echo(f"{model.path} {dict(model.metrics)}")
    if as_json:
        print_record({"artifact": model.name, "metrics": dict(model.metrics)})


def make_model(pipeline: Pipeline, stage: str, store: Store, judges: Judges | None) -> Artifact:
    """Run the stages up to one, and return its model."""
    if stage in FROM_RANKINGS:
        return learn_from_rankings(pipeline, stage, store)
    corpus = pipeline.corpus()
    tokenizer = pipeline.tokenizer(corpus)
    shards = pipeline.shards(corpus, tokenizer)
    model = pipeline.base(tokenizer, shards)
    if stage == "supervise":
        return pipeline.supervised(model, shards, pipeline.demonstrations())
    if stage == "classify":
        return pipeline.classifier(model, pipeline.labeled())
    if stage == "distill":
        return pipeline.student(model, shards)
    if stage in PRACTICE:
        return practise(pipeline, stage, model, shards, judges)
    return model


def learn_from_rankings(pipeline: Pipeline, stage: str, store: Store) -> Artifact:
    """Run a stage that fits what people said, from the model to start from or else the recipe's supervised one."""
    from sanbai.rounds.comparisons import find_comparisons
    from sanbai.rounds.thumbs import find_thumbs

    # What people said first: where there is nothing, nothing need be made.
    wanted = pipeline.recipe.direct.learn_from if stage == "direct" else "rankings"
    comparisons = find_comparisons(pipeline, store) if wanted != "thumbs" else None
    thumbs = find_thumbs(pipeline, store) if wanted != "rankings" else None
    policy = pipeline.start or make_model(pipeline, "supervise", store, None)
    if stage == "direct":
        sources = {"snapshot": comparisons, "thumbs": thumbs}
        return pipeline.direct(
            policy,
            {role: source.snapshot for role, source in sources.items() if source},
            comparisons.rankings.training if comparisons else [],
            thumbs.answers if thumbs else [],
        )
    assert comparisons is not None, "only direct preference learns from thumbs alone"
    rankings = comparisons.rankings
    taught = [*rankings.training, *rankings.judge]  # held-out labelers only measure
    return pipeline.self_judge(policy, comparisons.snapshot, pipeline.demonstrations(), taught)


def check_practice(recipe: Recipe, stage: str, judges: Judges | None, start: Artifact | None) -> None:
    """Refuse, before anything is computed, practice that nothing would judge, or that writes more than can be read.

    Raises:
        UsageError: no reward model, and no files to learn one from; or answers beside which no prompt has room.
        RecipeError: the files hold no comparisons, or the stage's answers are longer than the reward model's.
    """
    from sanbai.foundation.errors import RecipeError, UsageError
    from sanbai.rounds.stages.ancestry import check_answers

    if judges is None and recipe.material == "world":
        raise UsageError(
            "no reward model: rankings of the tiny world come from a round; finish one with `sanbai quickstart`, or "
            "name models with --reward and --judge"
        )
    if judges is None and not recipe.files.preferences:
        raise RecipeError("files.preferences names none, and practice wants them; or give --reward and --judge")
    section = PRACTICE[stage]
    longest, read = getattr(recipe, section).max_new_tokens, recipe.reward.max_response_tokens
    if longest > read:
        raise RecipeError(
            f"{section}.max_new_tokens {longest} exceeds reward.max_response_tokens {read}: the reward model has never "
            "read such answers; lower the first"
        )
    check_answers(start, recipe, {f"{section}.max_new_tokens": longest})


def practise(pipeline: Pipeline, stage: str, base: Artifact, shards: Artifact, judges: Judges | None) -> Artifact:
    """Run a stage that practises, from the model to start from or else the recipe's supervised one.

    Args:
        pipeline: recipe and job.
        stage: one of `PRACTICE`.
        base: the model to start from, or the pretrained one.
        shards: pretraining text.
        judges: reward model and second judge; where there are none, they are learned from the files' comparisons.
    """
    from sanbai.rounds.material import FilesMaterial
    from sanbai.rounds.practice import train_judges

    policy = pipeline.start or pipeline.supervised(base, shards, pipeline.demonstrations())
    if judges is None:
        assert isinstance(pipeline.material, FilesMaterial), "check_practice has refused the rest"
        _, *learned = train_judges(pipeline, pipeline.material, policy, pipeline.demonstrations())
        judges = learned[0], learned[1]
    section = PRACTICE[stage]
    if section == "reject":
        return pipeline.rejected(policy, shards, pipeline.best_answers(policy, *judges))
    return pipeline.practised(section, policy, *judges, shards, round=1)
