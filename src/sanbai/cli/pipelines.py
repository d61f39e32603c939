"""A recipe from its documents to the gate's verdict, as one record: for `quickstart`, `run start` and `round run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanbai.cli.labeling import FrontDoor, simulated_accounts
from sanbai.cli.stores import check_name, open_store, register, resolve_model
from sanbai.evaluation.models import report_with_verdict
from sanbai.feedback.registry import ModelKind, current_round, find_round, list_models, list_rounds, served
from sanbai.feedback.store import Store
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.device import apply_compute
from sanbai.foundation.errors import UsageError
from sanbai.foundation.files import read_json, write_atomic, write_json_atomic
from sanbai.foundation.recipe import validate_recipe
from sanbai.foundation.run import read_run
from sanbai.foundation.stage import Job
from sanbai.foundation.workspace import Workspace
from sanbai.rounds.material import FilesMaterial, WorldMaterial, open_material
from sanbai.rounds.panel import split_panel, split_rankings
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.recipe import Recipe, check_assistant
from sanbai.rounds.snapshot import read_snapshot_rankings
from sanbai.rounds.stages.judges import TaughtJudges
from sanbai.rounds.turn import (
    Ancestry,
    Asked,
    Outcome,
    find_ancestry,
    is_decided,
    make_ancestry,
    register_ancestry,
    turn,
)
from sanbai.serving.recipe import ServeRecipe

#: The recipe that a workspace's first round was made by; later rounds follow it unless told otherwise.
WORKSPACE_RECIPE = "recipe.json"
#: What the record takes over from `evaluation.json`.
SHOWN = ("evaluation", "win_rate", "by_kind", "reward_model", "kl", "alignment_tax", "few_shot", "worse")
#: Sections that do not shape the models which all rounds share: a later round may have them otherwise.
LATER = frozenset(
    {
        "compute",
        "label",
        "reward",
        "ppo",
        "group",
        "expert_iteration",
        "direct",
        "reject",
        "self_judge",
        "evaluate",
        "gate",
    }
)


#: The models of a run on files that can be served, and what they are.
FILES_MODELS: dict[str, ModelKind] = {"supervised": "supervised", "ppo": "policy", "ppo_without_ptx": "policy"}


def run_recipe(
    job: Job, recipe: Recipe, serve: ServeRecipe, data: Path, *, start: str = "", name: str = ""
) -> dict[str, Any]:
    """Run every stage of a recipe and return its record.

    Args:
        job: workspace, progress, stop signal.
        recipe: all stages.
        serve: settings of the loopback server that simulated labelers answer through.
        data: the folder that a recipe on files reads.
        start: the model that stands in the place of a pretrained one, by name.
        name: of a run on files: its models are registered as NAME-supervised, NAME-ppo, NAME-ppo_without_ptx.

    Raises:
        UsageError: a name for a recipe on the tiny world, whose round names its models itself; or one that is taken.
    """
    check_name(name)
    material = open_material(recipe, data)
    store = open_store(job.workspace)
    begin = resolve_model(store, job.workspace, start) if start else None
    if isinstance(material, FilesMaterial):
        from sanbai.rounds.practice import run_files

        apply_compute(recipe.compute)
        record = run_files(job, recipe, data, start=begin)
        for role, kind in FILES_MODELS.items() if name else ():
            register(store, f"{name}-{role}", kind, job.workspace.load(record["artifacts"][role]), parent=start)
        return record
    if name:
        raise UsageError(f"--name {name}: a round names its models itself; leave it out")
    return run_round(job, recipe, serve, num_asked=recipe.label.num_labelers, number=1, start=begin)


def run_round(
    job: Job, recipe: Recipe, serve: ServeRecipe, *, num_asked: int, number: int, start: Artifact | None = None
) -> dict[str, Any]:
    """Run or continue one round on the tiny world and return its record.

    Args:
        job: workspace, progress, stop signal.
        recipe: all stages.
        serve: settings of the loopback server that the simulated labelers answer through.
        num_asked: how many simulated labelers are asked; with 0 only what people say is new.
        number: of the round.
        start: the model that the first round starts from; where there is none, one is pretrained.

    Raises:
        RecipeError: the recipe makes no assistant.
        UsageError: the workspace's models were made by another recipe, or the number of labelers does not fit.
    """
    check_assistant(recipe)
    apply_compute(recipe.compute)
    store = open_store(job.workspace)
    material = open_material(recipe, Path())
    if not isinstance(material, WorldMaterial):
        raise UsageError('rounds need material = "world", whose program judges; `sanbai run start` runs files')
    _check_recipe(job.workspace, store, recipe, number)
    panel = split_panel([labeler.name for labeler in material.labelers], recipe.label)
    asked = None
    if num_asked:
        chosen = panel.choose(num_asked, recipe.label)
        accounts = simulated_accounts(store, chosen.everyone)
        asked = Asked(chosen, accounts, FrontDoor(job, store, serve, material))
    if number == 1:
        write_json_atomic(job.workspace.root / WORKSPACE_RECIPE, recipe.model_dump(mode="json"))
    pipeline = Pipeline(job, recipe, material, start)
    ancestry = find_ancestry(job.workspace, store) or make_ancestry(pipeline)
    if start is not None and ancestry.base.name != start.name:
        raise UsageError(
            f"{job.workspace.root}: its first round started from {ancestry.base.name}, not {start.name}; "
            "leave --start out, or choose another --workspace"
        )
    register_ancestry(store, ancestry)
    outcome = turn(pipeline, store, ancestry, round=number, panel=panel, asked=asked)
    page = report_with_verdict(outcome.report, outcome.verdict.to_json())
    write_atomic(job.workspace.root / f"report-{number}.html", page)
    return _record(job.workspace, store, recipe, ancestry, outcome)


def workspace_recipe(workspace: Workspace) -> Recipe:
    """Return the recipe of the workspace's first round.

    Raises:
        UsageError: there was none.
    """
    path = workspace.root / WORKSPACE_RECIPE
    if not path.exists():
        raise UsageError(f"{workspace.root}: no round was made here yet; start with `sanbai quickstart`")
    return validate_recipe(Recipe, read_json(path), source=str(path))


def _check_recipe(workspace: Workspace, store: Store, recipe: Recipe, number: int) -> None:
    """Refuse, before any work, a recipe that would have made other models than those that stand.

    Raises:
        UsageError: some section differs.
    """
    if not list_models(store) or not (workspace.root / WORKSPACE_RECIPE).exists():
        return
    first = workspace_recipe(workspace)
    fixed = [name for name in Recipe.model_fields if number == 1 or name not in LATER]
    if changed := [name for name in fixed if getattr(first, name) != getattr(recipe, name)]:
        raise UsageError(
            f"{workspace.root}: its first models were made with another {', '.join(changed)}; "
            "choose another --workspace, or give the recipe and seed of before"
        )


def evaluate_named(job: Job, names: Sequence[str]) -> tuple[Artifact, dict[str, Any]]:
    """Evaluate models of the workspace by name, each against the one before it; return the report and its numbers.

    Prompts, reward model and held-out rankings are those of the newest round that was evaluated.

    Raises:
        UsageError: no round was evaluated yet, or a model is named twice.
        UnknownNameError: no such model.
    """
    recipe = workspace_recipe(job.workspace)
    apply_compute(recipe.compute)
    store = open_store(job.workspace)
    if len(set(names)) < len(names):
        raise UsageError(f"{' '.join(names)}: a model is named twice; name each once")
    models = {name: resolve_model(store, job.workspace, name) for name in names}
    evaluated = [known for known in list_rounds(store) if "report" in known.artifacts]
    ancestry = find_ancestry(job.workspace, store)
    if not evaluated or ancestry is None:
        raise UsageError(f"{job.workspace.root}: no round was evaluated here yet; finish one with `sanbai round run`")
    newest = evaluated[-1]
    material = WorldMaterial(recipe)
    pipeline = Pipeline(job, recipe, material)
    panel = split_panel([labeler.name for labeler in material.labelers], recipe.label)
    snapshot = job.workspace.load(newest.artifacts["snapshot"][-1])
    reward, judge = (resolve_model(store, job.workspace, f"{name}-{newest.n}") for name in ("reward", "judge"))
    share = recipe.label.model_share
    rankings = split_rankings(read_snapshot_rankings(snapshot), panel, model_share=share, seed=recipe.seed)
    report = pipeline.report(models, ancestry.shards, TaughtJudges(reward, judge, rankings), round=newest.n)
    return report, read_json(report.file("evaluation.json"))


def next_round(store: Store) -> int:
    """Return the number of the unfinished round, or of a new one."""
    newest = current_round(store)
    return newest if newest and not is_decided(find_round(store, newest)) else newest + 1


def _record(workspace: Workspace, store: Store, recipe: Recipe, ancestry: Ancestry, outcome: Outcome) -> dict[str, Any]:
    evaluation = read_json(outcome.report.file("evaluation.json"))
    deployment = served(store)
    return {
        "round": outcome.round,
        "seed": recipe.seed,
        "workspace": str(workspace.root),
        "seconds": _seconds(workspace, store, outcome),
        **{key: evaluation[key] for key in SHOWN},
        "samples": read_json(outcome.report.file("samples.json")),
        "verdict": outcome.verdict.to_json(),
        "served": deployment.model if deployment else "",
        "snapshot": {"artifact": outcome.snapshot.name, **outcome.snapshot.metrics},
        "artifacts": {
            "base": ancestry.base.name,
            "supervised": ancestry.supervised.name,
            "policy": outcome.policy.name,
        },
        "report": str(workspace.root / f"report-{outcome.round}.html"),
    }


def _seconds(workspace: Workspace, store: Store, outcome: Outcome) -> dict[str, float]:
    """Return the time of every stage that the outcome came from, each once; round two does not count round one's."""
    noted = find_round(store, outcome.round).artifacts
    sampled = [workspace.load(noted[role][-1]) for role in ("tasks", "open_tasks") if role in noted]
    found = workspace.sources(outcome.report)
    own = list(found.values())
    if outcome.round > 1:
        parents = outcome.policy.manifest["parents"]
        own = [outcome.report, outcome.policy, found[parents["reward"]], found[parents["judge"]]]
    seconds = {
        str(made.manifest["stage"]): float(made.manifest["seconds"]) for made in (*own, outcome.snapshot, *sampled)
    }
    label = workspace.runs / f"label-{outcome.round}"
    if (label / "run.json").exists():
        seconds["label"] = float(read_run(label)["seconds"])
    return {name.replace(" ", "_"): round(value, 1) for name, value in sorted(seconds.items())}
