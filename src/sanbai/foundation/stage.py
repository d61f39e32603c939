"""Running a stage: the same request gives the same artifact, finished ones are returned, killed ones continue."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanbai.foundation.artifacts import ID_DIGITS, MANIFEST, Artifact, artifact_id, list_files
from sanbai.foundation.device import describe_machine
from sanbai.foundation.errors import Interrupted
from sanbai.foundation.files import explain_disk_errors, sync_file, sync_folder, write_json_atomic
from sanbai.foundation.lock import exclusive
from sanbai.foundation.progress import Progress
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.run import LOCK, Clock, Run, time_stamp
from sanbai.foundation.source import source_fingerprint
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace


@dataclass(frozen=True)
class Job:
    """What every stage of one command shares: where to work, how to tell of it, when to stop."""

    workspace: Workspace
    progress: Progress
    stop: StopSignal


@dataclass
class Stage:
    """What a stage's function is given.

    Attributes:
        name: the stage's name in logs and progress.
        folder: write the artifact's files here; it becomes the artifact whole, or is thrown away.
        run: metrics, events, checkpoints.
        seed: the recipe's seed; derive generators from it by name.
        parents: role -> artifact.
        job: the command's workspace, progress and stop signal.
        licences: notes on the data that went in, one a source; they enter the manifest.
    """

    name: str
    folder: Path
    run: Run
    seed: int
    parents: Mapping[str, Artifact]
    job: Job
    licences: list[str] = field(default_factory=list)


Build = Callable[[Stage], Mapping[str, Any]]


def run_stage(
    job: Job,
    *,
    kind: str,
    name: str,
    recipe: Mapping[str, RecipeSection],
    parents: Mapping[str, Artifact],
    seed: int,
    floor: str,
    num_steps: int,
    build: Build,
    inputs: Mapping[str, str] | None = None,
    modules: Sequence[str] = (),
) -> Artifact:
    """Return the artifact that this request determines, making it only if it does not exist.

    Args:
        job: workspace, progress, stop signal.
        kind: the artifact's kind: corpus, shards, tokenizer, model, snapshot, report.
        name: the stage's name for people.
        recipe: the resolved sections the stage reads, by section name; part of the id.
        parents: the artifacts it is made from, by role; part of the id.
        seed: the recipe's seed; part of the id.
        floor: where the stage's code lives; its source and that of the floors below are part of the id.
        num_steps: length of the progress bar.
        build: writes files into `stage.folder` and returns the metrics.
        modules: single source files of floors above that count too, such as `rounds/material.py`.
        inputs: whatever else determines the content (say, hashes of files from outside); part of the id.

    Raises:
        Interrupted: asked to stop; the state is saved.
        ResourceError: another process is making the same artifact, or the disk is full.
    """
    sections = {
        section: values.model_dump(mode="json", exclude=set(values.no_number_depends_on))
        for section, values in recipe.items()
    }
    parent_ids = {role: artifact.id for role, artifact in parents.items()}
    determined_by = {"stage": name, **sections, **({"inputs": dict(inputs)} if inputs else {})}
    identity = artifact_id(kind, determined_by, parent_ids, seed, source_fingerprint(floor, *modules))
    if (existing := job.workspace.find(kind, identity)) is not None:
        existing.verify()
        return existing

    title = f"{kind}-{identity[:ID_DIGITS]}"
    run_folder = job.workspace.runs / title
    partial = job.workspace.artifacts / f".partial-{title}"
    with explain_disk_errors(run_folder):
        run_folder.mkdir(parents=True, exist_ok=True)
    with exclusive(run_folder / LOCK, title), explain_disk_errors(partial):
        if (existing := job.workspace.find(kind, identity)) is not None:
            return existing
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        bar = job.progress.task(name, num_steps)
        run = Run(run_folder, bar, job.stop)
        stage = Stage(name, partial, run, seed, parents, job)
        clock = Clock(run_folder, name)
        try:
            metrics = dict(build(stage))
        except BaseException as error:
            clock.stop("stopped" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed")
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            run.close()
        manifest = {
            "kind": kind,
            "id": identity,
            "stage": name,
            "parents": {role: artifact.name for role, artifact in parents.items()},
            "recipe": determined_by,
            "seed": seed,
            "files": list_files(partial),
            "metrics": metrics,
            "licences": sorted(set(stage.licences)),
            "machine": describe_machine(),
            "started": clock.started,
            "finished": time_stamp(),
            "seconds": round(clock.seconds(), 3),
        }
        artifact = _publish(partial, job.workspace.artifacts / title, manifest)
        clock.stop("done", artifact=title)
        bar.finish()
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        return artifact


def _publish(partial: Path, path: Path, manifest: dict[str, Any]) -> Artifact:
    """Force every file to disk, then let the folder appear by one rename."""
    write_json_atomic(partial / MANIFEST, manifest)
    for inside in partial.rglob("*"):
        if inside.is_dir():
            sync_folder(inside)
        else:
            sync_file(inside)
    sync_folder(partial)
    partial.rename(path)
    sync_folder(path.parent)
    return Artifact(path, manifest)
