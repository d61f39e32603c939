"""The whole pipeline on people's own files: from documents to two practised policies and a report.

The same stages as a round's, in one go. There are no labelers to ask and no program that judges: preferences come from
files, split by prompt between the reward model, the second judge and measuring; and since nothing measures an
assistant's worth but the second judge, practice is run twice, with pretraining text mixed in (the recipe's `ptx_coef`)
and without (0, everything else equal), so that the tax shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sanbai.data.rankings import Ranking, read_rankings
from sanbai.data.records import write_records
from sanbai.data.shards import ShardReader
from sanbai.data.vocabulary import load_tokenizer
from sanbai.evaluation.files import FilesHeldOut, Judges, evaluate_files, num_files_steps
from sanbai.evaluation.models import Context
from sanbai.evaluation.readers import HeldOutText, excerpts
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import DataError, RecipeError
from sanbai.foundation.files import canonical_json, read_json, read_jsonl, write_atomic
from sanbai.foundation.run import read_metrics
from sanbai.foundation.stage import Job, Stage, run_stage
from sanbai.rounds.material import FilesMaterial
from sanbai.rounds.panel import RankingsByUse
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.recipe import Recipe, check_assistant
from sanbai.rounds.stages.evaluation import make_contestant
from sanbai.rounds.turn import Ancestry, make_ancestry
from sanbai.training.reward_model import load_reward_model

#: Held-out documents are read up to here: a whole book would outweigh everything else.
EXCERPT_TOKENS = 16_384

#: What lies above the floor of evaluation and decides what it is given.
MODULES = ("rounds/material.py", "rounds/practice.py")
#: Files of the snapshot: whom a comparison may teach, or that it only measures.
USES = {"training": "rankings.jsonl.gz", "judge": "judge.jsonl.gz", "heldout": "heldout.jsonl.gz"}


@dataclass(frozen=True)
class Practised:
    """Everything that a run on files makes."""

    ancestry: Ancestry
    snapshot: Artifact
    reward: Artifact
    judge: Artifact
    policies: Mapping[str, Artifact]
    report: Artifact

    @property
    def models(self) -> dict[str, Artifact]:
        """The language models in the order of their making."""
        return {"base": self.ancestry.base, "supervised": self.ancestry.supervised, **self.policies}


def run_files(job: Job, recipe: Recipe, folder: Path, *, start: Artifact | None = None) -> dict[str, Any]:
    """Run every stage of a recipe on the files of a folder, and return the record.

    Args:
        job: workspace, progress, stop signal.
        recipe: with `material = "files"`.
        folder: what the recipe's paths are relative to.
        start: the model to start from; where there is none, one is pretrained.

    Raises:
        DataError: the folder or a file is missing, damaged, or leaves nothing to learn from.
        RecipeError: the recipe makes no assistant.
        Interrupted: asked to stop; the same call continues.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name the one that the recipe's paths are relative to with --data")
    check_assistant(recipe)
    if not recipe.files.preferences:
        raise RecipeError(
            "files.preferences names none, and practice wants them; `sanbai train` runs the stages before"
        )
    material = FilesMaterial(recipe, folder)
    material.fingerprint()  # a missing file ends the run before its first hour
    pipeline = Pipeline(job, recipe, material, start)
    ancestry = make_ancestry(pipeline)
    snapshot, reward, judge = train_judges(pipeline, material, ancestry.supervised, ancestry.demonstrations)
    without_ptx = recipe.model_copy(update={"ppo": recipe.ppo.model_copy(update={"ptx_coef": 0.0})})
    policies = {
        "ppo": pipeline.policy(ancestry.supervised, reward, judge, ancestry.shards, round=1),
        "ppo_without_ptx": replace(pipeline, recipe=without_ptx).policy(
            ancestry.supervised, reward, judge, ancestry.shards, round=1
        ),
    }
    models = {"base": ancestry.base, "supervised": ancestry.supervised, **policies}
    report = report_files(pipeline, material, models, ancestry, reward, judge, snapshot)
    practised = Practised(ancestry, snapshot, reward, judge, policies, report)
    page = job.workspace.root / "report-files.html"
    write_atomic(page, report.file("report.html").read_bytes())
    return _record(job, recipe, practised, page)


def train_judges(
    pipeline: Pipeline, material: FilesMaterial, start: Artifact, demonstrations: Artifact
) -> tuple[Artifact, Artifact, Artifact]:
    """Return the frozen comparisons of the files, the reward model and the second judge, each from its part of them.

    Args:
        pipeline: recipe and job.
        material: the comparisons.
        start: the model whose trunk both start from.
        demonstrations: their mean reward becomes 0.

    Raises:
        DataError: a use has no comparison that prefers one answer to another.
    """
    snapshot = freeze_preferences(pipeline.job, material.preferences, seed=pipeline.recipe.seed)
    rankings = read_preferences_by_use(snapshot)
    reward = pipeline.reward("reward", start, snapshot, demonstrations, rankings.training)
    return snapshot, reward, pipeline.reward("judge", start, snapshot, demonstrations, rankings.judge)


def freeze_preferences(job: Job, preferences: RankingsByUse, *, seed: int) -> Artifact:
    """Freeze the comparisons of the files as a snapshot, split by use.

    Its id is the hash of its content, like that of a round's snapshot.

    Raises:
        DataError: a use has no comparison that prefers one answer to another.
    """
    rankings: dict[str, list[Ranking]] = {use: sorted(getattr(preferences, use), key=_row_text) for use in USES}
    for use, found in rankings.items():
        if not any(ranking.pairs() for ranking in found):
            raise DataError(
                f"{len(found)} of {sum(map(len, rankings.values()))} comparisons fell to the use {use!r}, and none "
                "prefers an answer; give more preferences, or change files.heldout_share or files.judge_share"
            )
    content = "\n".join(f"{use}\t{_row_text(ranking)}" for use, found in rankings.items() for ranking in found)

    def build(stage: Stage) -> Mapping[str, Any]:
        for use, name in USES.items():
            write_records(stage.folder / name, rankings[use])
        return {use: len(found) for use, found in rankings.items()}

    return run_stage(
        job,
        kind="snapshot",
        name="snapshot",
        recipe={},
        parents={},
        seed=seed,
        floor="data",
        num_steps=1,
        build=build,
        inputs={"content": hashlib.sha256(content.encode()).hexdigest()},
    )


def _row_text(ranking: Ranking) -> str:
    return canonical_json(ranking.to_row())


def read_preferences_by_use(snapshot: Artifact) -> RankingsByUse:
    """Return the comparisons of a snapshot that `freeze_preferences` made."""
    return RankingsByUse(**{use: list(read_rankings(snapshot.file(name))) for use, name in USES.items()})


def report_files(
    pipeline: Pipeline,
    material: FilesMaterial,
    models: Mapping[str, Artifact],
    ancestry: Ancestry,
    reward: Artifact,
    judge: Artifact,
    snapshot: Artifact,
) -> Artifact:
    """Measure all models on held-out text, prompts and comparisons.

    Args:
        pipeline: recipe and job.
        material: the prompts.
        models: base, supervised and the policies.
        ancestry: whose shards are read.
        reward: what the policies were trained on.
        judge: what watched them.
        snapshot: of the comparisons.
    """
    recipe = pipeline.recipe
    corpus = pipeline.corpus()
    rewards = {"reward": reward, "judge": judge}

    def build(stage: Stage) -> Mapping[str, Any]:
        tokenizer = load_tokenizer(reward)
        documents = excerpts(
            ShardReader(ancestry.shards, "validation"),
            tokenizer,
            num=recipe.evaluate.num_documents,
            max_tokens=EXCERPT_TOKENS,
        )
        sources = [str(row["source"]) for row in read_jsonl(corpus.file("validation.jsonl.gz"))]
        runs = pipeline.job.workspace.runs
        return evaluate_files(
            stage,
            recipe.evaluate,
            recipe.compute,
            {
                name: make_contestant(
                    name, artifact, tokenizer, recipe.evaluate, longest_read=recipe.reward.max_prompt_tokens
                )
                for name, artifact in models.items()
            },
            tokenizer=tokenizer,
            held_out=FilesHeldOut(
                text=HeldOutText(documents, sources[: len(documents)]),
                training=ShardReader(ancestry.shards, "train"),
                prompts=material.prompts("evaluate", recipe.evaluate.num_prompts),
                rankings=read_preferences_by_use(snapshot).heldout,
            ),
            judges=Judges(
                reward=load_reward_model(reward.path, recipe.compute),
                judge=load_reward_model(judge.path, recipe.compute),
                max_prompt_tokens=recipe.reward.max_prompt_tokens,
                max_response_tokens=recipe.reward.max_response_tokens,
            ),
            context=Context(
                series={
                    {"base": "pretrain", "supervised": "supervise"}.get(name, name): read_metrics(runs / artifact.name)
                    for name, artifact in {**models, **rewards}.items()
                },
                seconds={name: float(artifact.manifest["seconds"]) for name, artifact in models.items()},
                facts=_facts(recipe, corpus, models["base"]),
            ),
        )

    return run_stage(
        pipeline.job,
        kind="report",
        name="evaluate",
        recipe={
            "files": recipe.files,
            "evaluate": recipe.evaluate,
            "reward": recipe.reward,
            "compute": recipe.compute,
        },
        parents={**models, **rewards, "corpus": corpus, "shards": ancestry.shards, "snapshot": snapshot},
        seed=recipe.seed,
        floor="evaluation",
        num_steps=num_files_steps(len(models)),
        build=build,
        modules=MODULES,
    )


def _facts(recipe: Recipe, corpus: Artifact, base: Artifact) -> dict[str, str]:
    metrics, machine = corpus.metrics, base.manifest["machine"]
    return {
        "material": "files of " + ", ".join(sorted({source.path for source in recipe.files.documents})),
        "training text": f"{metrics['train_documents']:,} documents, {metrics['train_bytes']:,} bytes",
        "seed": str(recipe.seed),
        "machine": f"{machine['system']}, {machine['cpu_capability']}, {recipe.compute.num_threads} threads",
    }


def _record(job: Job, recipe: Recipe, practised: Practised, page: Path) -> dict[str, Any]:
    evaluation = read_json(practised.report.file("evaluation.json"))
    ancestry = practised.ancestry
    corpus = job.workspace.load(str(ancestry.shards.manifest["parents"]["corpus"]))
    made = {
        "corpus": corpus,
        "tokenizer": ancestry.tokenizer,
        "shards": ancestry.shards,
        "pretrain": ancestry.base,
        "demonstrations": ancestry.demonstrations,
        "supervise": ancestry.supervised,
        "snapshot": practised.snapshot,
        "reward": practised.reward,
        "judge": practised.judge,
        **practised.policies,
        "evaluate": practised.report,
    }
    return {
        "seed": recipe.seed,
        "workspace": str(job.workspace.root),
        "seconds": {name: round(float(artifact.manifest["seconds"]), 1) for name, artifact in made.items()},
        **evaluation,
        "snapshot": {"artifact": practised.snapshot.name, **practised.snapshot.metrics},
        "artifacts": {name: artifact.name for name, artifact in practised.models.items()},
        "report": str(page),
    }
