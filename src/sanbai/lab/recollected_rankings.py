"""Rankings of the policy's own new answers, round after round: does each round improve on prompts nobody has seen?

Round n asks the labelers about answers of the policy of round n - 1, trains the reward model anew on all rankings so
far, and practises from that policy (InstructGPT's steps 2 and 3 "can be iterated continuously"). The control practises
as often, each time against the rankings of round one.
"""

from __future__ import annotations

from sanbai.evaluation.compare import win_rate
from sanbai.foundation.artifacts import Artifact
from sanbai.lab.assistants import Assistants, mean_of
from sanbai.lab.trials import Phenomenon

NUM_ROUNDS = 3
WAYS = ("new rankings", "rankings of round one")
#: Whose held-out prompts are asked: of a round that nobody practised on.
FRESH = NUM_ROUNDS + 1


def measure(assistants: Assistants) -> dict[str, float]:
    """Turn both wheels and return the gold utility after each round."""
    supervised = assistants.ancestry.supervised
    labels, again = assistants.labels, assistants.policy
    policy: Artifact = assistants.policy
    before = assistants.measured("model", policy, round=FRESH)
    figures = {
        "gold utility, supervised": mean_of(
            assistants.measured("model", supervised, round=FRESH).answers, "gold_utility"
        )
    }
    for way in WAYS:
        figures[f"gold utility after round 1, {way}"] = mean_of(before.answers, "gold_utility")
    for number in range(2, NUM_ROUNDS + 1):
        seen = (*labels.by_use.training, *labels.by_use.judge, *labels.by_use.heldout)
        labels = assistants.ask(policy, assistants.material.labelers, round=number, before=seen)
        policy = assistants.practised(policy, assistants.taught(labels), round=number)
        again = assistants.practised(again, assistants.judges, round=number)
        for way, model in zip(WAYS, (policy, again), strict=True):
            after = assistants.measured("model", model, round=FRESH)
            figures[f"gold utility after round {number}, {way}"] = mean_of(after.answers, "gold_utility")
            figures[f"win rate over round 1 after round {number}, {way}"] = win_rate(
                after.answers, before.answers, seed=0, draws=200
            ).mean
    return figures


ROUNDS = range(2, NUM_ROUNDS + 1)
RECOLLECTED_RANKINGS = Phenomenon[Assistants](
    name="recollected_rankings",
    claim="Ranking the new policy's answers lets practice go on improving (arXiv:2203.02155, section 3.1).",
    measure=measure,
    effect=(
        *(f"gold utility after round {number}, {WAYS[0]}" for number in (1, *ROUNDS)),
        *(f"win rate over round 1 after round {number}, {WAYS[0]}" for number in ROUNDS),
    ),
    control=(
        "gold utility, supervised",
        *(f"gold utility after round {number}, {WAYS[1]}" for number in ROUNDS),
        *(f"win rate over round 1 after round {number}, {WAYS[1]}" for number in ROUNDS),
    ),
)
