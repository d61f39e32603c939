"""One labeler in twenty ranks everything the wrong way round: what the reward model loses, and who is found out.

Their weights are turned about, so that they see most in what is worst; they all rank for training, so that their share
of what the reward model learns from is larger than their share of the people. Found out is who orders pairs against
the others (`evaluation/labelers.py`). Refuted if accuracy on held-out labelers falls by five points or more, if one of
them is not found, or if somebody honest is.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean

from sanbai.evaluation.labelers import against_the_others, agreement_by_labeler
from sanbai.lab.assistants import Assistants
from sanbai.lab.trials import Phenomenon
from sanbai.world.labelers import SimulatedLabeler

SHARE = 0.05


def measure(assistants: Assistants) -> dict[str, float]:
    """Teach a reward model with and without them and return the figures."""
    labelers = list(assistants.material.labelers)
    hostile = [turned_about(labeler) for labeler in labelers[: math.ceil(SHARE * len(labelers))]]
    labels = assistants.ask(assistants.ancestry.supervised, [*hostile, *labelers[len(hostile) :]])
    names = {labeler.name for labeler in hostile}
    heldout = assistants.labels.by_use.heldout
    figures: dict[str, float] = {}
    for way, found in (("hostile", labels), ("honest", assistants.labels)):
        training = found.by_use.training
        reward = assistants.taught(found).reward
        agreement = agreement_by_labeler([*training, *found.by_use.judge], seed=0, draws=400)
        accused = set(against_the_others(agreement))
        figures[f"accuracy on held-out labelers, {way}"] = assistants.accuracy(reward, heldout).accuracy.mean
        figures[f"share of honest labelers accused, {way}"] = len(accused - names) / len(agreement)
        if way == "hostile":
            figures["share of training rankings that are theirs"] = fmean(
                float(ranking.labeler in names) for ranking in training
            )
            figures["share of hostile labelers found"] = len(accused & names) / len(names)
            figures["agreement with others, hostile labelers"] = fmean(
                estimate.mean for name, estimate in agreement.items() if name in names
            )
    return figures


def turned_about(labeler: SimulatedLabeler) -> SimulatedLabeler:
    """Return a labeler who sees most in what the other sees least in."""
    return replace(
        labeler,
        helpful=-labeler.helpful,
        honest=-labeler.honest,
        harmless=-labeler.harmless,
        length=-labeler.length,
    )


HOSTILE_LABELERS = Phenomenon[Assistants](
    name="hostile_labelers",
    claim="A twentieth of hostile labelers costs the reward model little, and agreement finds them.",
    measure=measure,
    effect=(
        "accuracy on held-out labelers, hostile",
        "share of hostile labelers found",
        "agreement with others, hostile labelers",
        "share of training rankings that are theirs",
    ),
    control=(
        "accuracy on held-out labelers, honest",
        "share of honest labelers accused, hostile",
        "share of honest labelers accused, honest",
    ),
)
