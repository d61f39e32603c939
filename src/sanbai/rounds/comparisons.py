"""The rankings that a workspace has to learn from outside its rounds: the newest frozen ones, or those of the files."""

from __future__ import annotations

from dataclasses import dataclass

from sanbai.feedback.registry import list_rounds
from sanbai.feedback.store import Store
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import UsageError
from sanbai.rounds.material import FilesMaterial, WorldMaterial
from sanbai.rounds.panel import RankingsByUse, split_panel, split_rankings
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.practice import freeze_preferences, read_preferences_by_use
from sanbai.rounds.snapshot import read_snapshot_rankings


@dataclass(frozen=True)
class Comparisons:
    """A snapshot, and its rankings by what they may be used for."""

    snapshot: Artifact
    rankings: RankingsByUse


def find_comparisons(pipeline: Pipeline, store: Store) -> Comparisons:
    """Freeze the preferences of a recipe on files, or find what was frozen for the workspace's newest round.

    Raises:
        UsageError: no round has frozen any yet, or the files have none.
        DataError: the files leave a use without a preference, or a use of the snapshot's rankings has none.
    """
    material, job, recipe = pipeline.material, pipeline.job, pipeline.recipe
    if isinstance(material, FilesMaterial):
        if not recipe.files.preferences:
            raise UsageError("files.preferences names none, and there is nothing else to learn from")
        snapshot = freeze_preferences(job, material.preferences, seed=recipe.seed)
        return Comparisons(snapshot, read_preferences_by_use(snapshot))
    assert isinstance(material, WorldMaterial), "there are two kinds"
    frozen = [known.artifacts["snapshot"][-1] for known in list_rounds(store) if "snapshot" in known.artifacts]
    if not frozen:
        raise UsageError(f"{store.place}: no round has frozen rankings yet; finish one with `sanbai round run` first")
    snapshot = job.workspace.load(frozen[-1])
    snapshot.verify()
    panel = split_panel([labeler.name for labeler in material.labelers], recipe.label)
    share = recipe.label.model_share
    rankings = split_rankings(read_snapshot_rankings(snapshot), panel, model_share=share, seed=recipe.seed)
    rankings.check()
    return Comparisons(snapshot, rankings)
