"""How much of a win rate is length, where labelers like length.

The same answers are ranked by the seed's labelers and by labelers who like length three times as much; each teaches a
reward model, each reward model a policy. By the eyes of those who like length the second policy should win more often
than by gold utility, its answers should be longer, and the length-controlled rate (`evaluation/length_control.py`)
should take the difference away. The control is the policy of the usual labelers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sanbai.evaluation.answers import ScoredAnswer
from sanbai.evaluation.length_control import length_controlled_win_rate
from sanbai.lab.assistants import Assistants, mean_of
from sanbai.lab.trials import Phenomenon
from sanbai.world.labelers import SimulatedLabeler, judged

#: Times the recipe's liking for length.
MORE_LIKING = 3.0
WAYS = ("liking length", "usual labelers")


def measure(assistants: Assistants) -> dict[str, float]:
    """Teach both policies and return the figures."""
    supervised = assistants.ancestry.supervised
    likers = [replace(labeler, length=MORE_LIKING * labeler.length) for labeler in assistants.material.labelers]
    liked = assistants.practised(supervised, assistants.taught(assistants.ask(supervised, likers)))
    before = assistants.measured("model", supervised).answers
    figures: dict[str, float] = {}
    for way, policy in zip(WAYS, (liked, assistants.policy), strict=True):
        after = assistants.measured("model", policy).answers
        gold = outcomes([answer.gold_utility for answer in after], [answer.gold_utility for answer in before])
        seen = outcomes(utilities(assistants, after, likers), utilities(assistants, before, likers))
        longer = [ours.length - theirs.length for ours, theirs in zip(after, before, strict=True)]
        figures |= {
            f"win rate by those who like length, {way}": sum(seen) / len(seen),
            f"the same, length controlled, {way}": length_controlled_win_rate(seen, longer),
            f"win rate by gold utility, {way}": sum(gold) / len(gold),
            f"words more than supervised, {way}": sum(longer) / len(longer),
            f"gold utility, {way}": mean_of(after, "gold_utility"),
        }
    return figures


def utilities(
    assistants: Assistants, answers: Sequence[ScoredAnswer], labelers: Sequence[SimulatedLabeler]
) -> list[float]:
    """Return what labelers see in each answer, on average and without their noise."""
    prompts = {prompt.id: prompt for prompt in assistants.heldout_prompts()}
    return [
        sum(labeler.utility(judged(prompts[answer.prompt], answer.answer)) for labeler in labelers) / len(labelers)
        for answer in answers
    ]


def outcomes(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return 1, ½ or 0 where ours is more, as much or less."""
    return [float(a > b) + 0.5 * float(a == b) for a, b in zip(ours, theirs, strict=True)]


LENGTH_LIKING = Phenomenon[Assistants](
    name="length_liking",
    claim="Labelers who like length teach it, and a length-controlled win rate takes it out (arXiv:2404.04475).",
    measure=measure,
    effect=tuple(
        f"{figure}, {WAYS[0]}"
        for figure in (
            "win rate by those who like length",
            "the same, length controlled",
            "win rate by gold utility",
            "words more than supervised",
        )
    ),
    control=tuple(
        f"{figure}, {WAYS[1]}"
        for figure in (
            "win rate by those who like length",
            "the same, length controlled",
            "win rate by gold utility",
            "words more than supervised",
        )
    ),
    units={f"words more than supervised, {way}": "words" for way in WAYS},
)
