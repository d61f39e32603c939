"""The thumbs that a workspace has to learn from: frozen when they are asked for, each an opinion of one answer."""

from __future__ import annotations

from dataclasses import dataclass

from sanbai.data.thumbs import ThumbedAnswer, read_thumbs
from sanbai.feedback.store import Store
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import UsageError
from sanbai.rounds.material import WorldMaterial
from sanbai.rounds.panel import split_panel
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.snapshot import freeze_thumbs


@dataclass(frozen=True)
class FrozenThumbs:
    """A snapshot, and those of its thumbs that may be learned from."""

    snapshot: Artifact
    answers: list[ThumbedAnswer]


def find_thumbs(pipeline: Pipeline, store: Store) -> FrozenThumbs:
    """Freeze the thumbs that people agreed to give until now, and return those that may be learned from.

    Left out are answers that were cut off, whose end is not the model's, and the thumbs of simulated labelers who only
    teach the second judge or measure.

    Raises:
        UsageError: there are none.
    """
    material, recipe = pipeline.material, pipeline.recipe
    snapshot = freeze_thumbs(pipeline.job, store, seed=recipe.seed)
    apart: set[str] = set()
    if isinstance(material, WorldMaterial):
        panel = split_panel([labeler.name for labeler in material.labelers], recipe.label)
        apart = {*panel.judge, *panel.heldout}
    frozen = list(read_thumbs(snapshot.file("thumbs.jsonl.gz")))
    answers = [thumb for thumb in frozen if thumb.finished and thumb.labeler not in apart]
    if not answers:
        raise UsageError(
            f"{store.place}: none of {len(frozen)} thumbs may be learned from; let people who agree to it give thumbs "
            'to whole answers in the chat, or set direct.learn_from = "rankings"'
        )
    return FrozenThumbs(snapshot, answers)
