"""A reward model as a labeler: AI feedback beside people's (Bai et al. 2022, arXiv:2212.08073), never in their name.

The reward model of the round before ranks a share of a round's tasks in the labelers' place (`label.model_share`). Its
rankings carry its name, `model:` and the artifact's; they are counted apart in the snapshot, capped where a reward
model learns from them, and the report says how often the model orders the round's pairs as people did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sanbai.data.rankings import Ranking
from sanbai.feedback.accounts import MODEL_PREFIX
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.seeds import python_random
from sanbai.rounds.tasks import Task

#: Logit of 0.6: answers between which the model is less than 60 % sure are tied.
TIE_MARGIN = 0.405


def labeler_name(reward: Artifact) -> str:
    """Return the name that a reward model ranks by."""
    return f"{MODEL_PREFIX}{reward.name}"


def is_model(labeler: str) -> bool:
    """Return whether a labeler is a model."""
    return labeler.startswith(MODEL_PREFIX)


def ranks_in_their_place(task: Task, share: float, *, seed: int) -> bool:
    """Return whether a task goes to the model: a share of those that train, drawn by the task's own id."""
    return not task.heldout and python_random(seed, "model ranks", task.id).random() < share


def buckets_of(rewards: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """Return answers by reward, best first; a bucket ends where the margin to its best answer reaches `TIE_MARGIN`."""
    buckets: list[list[int]] = []
    for place in sorted(range(len(rewards)), key=lambda place: -rewards[place]):
        if not buckets or rewards[buckets[-1][0]] - rewards[place] >= TIE_MARGIN:
            buckets.append([])
        buckets[-1].append(place)
    return tuple(tuple(sorted(bucket)) for bucket in buckets)


def cap_share(rankings: Sequence[Ranking], share: float, *, seed: int) -> list[Ranking]:
    """Return rankings of which models made at most a share; all others stay, and which go is drawn by their ids."""
    models = [one for one in rankings if is_model(one.labeler)]
    room = int(share / (1 - share) * (len(rankings) - len(models)))
    drawn = sorted(models, key=lambda one: python_random(seed, "model's place", one.id).random())
    kept = {one.id for one in drawn[:room]}
    return [one for one in rankings if not is_model(one.labeler) or one.id in kept]


def count_teachers(rankings: Sequence[Ranking], simulated: Sequence[str]) -> Mapping[str, int]:
    """Return `{"person", "simulated", "model"}`: how many rankings of each a reward model is taught by."""
    names = set(simulated)
    counts = {"person": 0, "simulated": 0, "model": 0}
    for one in rankings:
        counts["model" if is_model(one.labeler) else "simulated" if one.labeler in names else "person"] += 1
    return counts
