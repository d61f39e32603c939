"""Does practice lose by answers that are one update old?

With `ppo.staleness` 1 each batch is answered by the policy from before the last update, so that answering and learning
can go on side by side on different machines; tokens count by importance weights (Hilton et al. 2021, arXiv:2110.00641;
AReaL, arXiv:2505.24298). Here the recipe's policy, practised both ways from the same supervised model with the same
reward model, second judge, prompts, and number of answers; nothing runs faster in one process, so no seconds are
compared. Refuted if stale practice ends below the other by more than their spread over seeds. The supervised model is
the control.
"""

from __future__ import annotations

from sanbai.evaluation.compare import win_rate
from sanbai.foundation.run import read_metrics
from sanbai.lab.assistants import Assistants, mean_of
from sanbai.lab.trials import Phenomenon

WAYS = {"fresh": 0, "stale": 1}


def measure(assistants: Assistants) -> dict[str, float]:
    """Practise both ways and return the figures."""
    supervised = assistants.measured("model", assistants.ancestry.supervised)
    figures = {"gold utility, supervised": mean_of(supervised.answers, "gold_utility")}
    answers = {}
    for way, staleness in WAYS.items():
        policy = assistants.practised(assistants.ancestry.supervised, assistants.judges, staleness=staleness)
        found = assistants.measured("model", policy)
        answers[way] = found.answers
        figures |= {
            f"gold utility, {way}": mean_of(found.answers, "gold_utility"),
            f"win rate over supervised, {way}": win_rate(found.answers, supervised.answers, seed=0, draws=200).mean,
            f"KL, {way}": assistants.kl(policy, found),
        }
        rows = read_metrics(assistants.job.workspace.runs / policy.name)
        figures |= {
            f"largest {metric}, {way}": max(row[metric] for row in rows if metric in row)
            for metric in ("clip_fraction", "importance_capped")
            if any(metric in row for row in rows)
        }
    figures["win rate of stale over fresh"] = win_rate(answers["stale"], answers["fresh"], seed=0, draws=200).mean
    return figures


STALE_PRACTICE = Phenomenon[Assistants](
    name="stale_practice",
    claim="Practice by answers one update old, weighted by importance, ends where practice by fresh ones does.",
    measure=measure,
    effect=(
        "gold utility, stale",
        "win rate of stale over fresh",
        "win rate over supervised, stale",
        "KL, stale",
        "largest clip_fraction, stale",
        "largest importance_capped, stale",
    ),
    control=(
        "gold utility, fresh",
        "win rate over supervised, fresh",
        "KL, fresh",
        "largest clip_fraction, fresh",
        "gold utility, supervised",
    ),
    units={f"KL, {way}": "nats a response" for way in WAYS},
)
