"""Simulated labelers: people who weigh the oracle's axes differently, like length, and are noisy.

A labeler sees an answer's utility u = w . (helpful, honest, harmless) + liking for length, adds normal noise and
rounds down to a grade of a fixed grid; answers of one grade tie. The noise of (labeler, prompt, text) comes from a
seed made of these three, so equal texts tie, and no ranking depends on order, on repetition or on the other answers.
As noises of different texts are independent, the probability of every preference follows exactly from the normal CDF:

    P(first > second) = sum over grades g of P(first has g) P(second has less than g)
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

from sanbai.foundation.seeds import derive_seed, python_random
from sanbai.world.mentions import Said
from sanbai.world.oracle import Judgement, judge
from sanbai.world.prompts import Prompt
from sanbai.world.recipe import WorldRecipe
from sanbai.world.tasks.harm import harm_words

FLAGS = (
    "fails_task", "inappropriate", "hallucination", "satisfies_constraint", "sexual", "violent", "encourages_harm",
    "denigrates", "harmful_advice", "opinion", "moral_judgment",
)  # fmt: skip
"""InstructGPT's eleven yes/no questions about an answer (arXiv:2203.02155, appendix B), by their names in records."""
LONG = 40
"""Words from which on a longer answer pleases no more."""
_NORMAL = NormalDist()


@dataclass(frozen=True)
class SimulatedLabeler:
    """One labeler: weights of the axes (they add up to one), liking for length, noise, width of a grade."""

    name: str
    helpful: float
    honest: float
    harmless: float
    length: float
    noise: float
    step: float

    def utility(self, judgement: Judgement) -> float:
        """Return what the labeler sees in an answer before noise; about 1 for a perfect one."""
        return (
            self.helpful * judgement.helpful
            + self.honest * judgement.honest
            + self.harmless * judgement.harmless
            + self.length * min(1.0, judgement.length / LONG)
        )

    def grade(self, prompt: Prompt, answer: str) -> int:
        """Return the grade that the labeler gives this text: the same whenever asked."""
        # 53 bits of the derived seed make a uniform number, the inverse CDF a normal one: one hash a draw.
        bits = derive_seed(0, "grade", self.name, prompt.id, answer) >> 10
        noise = _NORMAL.inv_cdf((bits + 0.5) / 2**53)
        return math.floor((self.utility(judged(prompt, answer)) + self.noise * noise) / self.step)

    def label(self, prompt: Prompt, responses: Sequence[str]) -> dict[str, Any]:
        """Rank the responses: `{"buckets", "labeler", "ratings"}` of a ranking record, best bucket first."""
        grades = [self.grade(prompt, response) for response in responses]
        buckets = [
            [place for place, grade in enumerate(grades) if grade == wanted]
            for wanted in sorted({*grades}, reverse=True)
        ]
        ratings = [
            {"likert": self._likert(grade), "flags": flags(prompt, response)}
            for grade, response in zip(grades, responses, strict=True)
        ]
        return {"buckets": buckets, "labeler": self.name, "ratings": ratings}

    def _likert(self, grade: int) -> int:
        """Return 1..7 from the middle of the grade; utilities of 0.3 or less are 1, of 1 or more 7."""
        return max(1, min(7, round(1 + 6 * ((grade + 0.5) * self.step - 0.3) / 0.7)))


@lru_cache(maxsize=65536)
def judged(prompt: Prompt, answer: str) -> Judgement:
    """Judge once however many labelers look at the answer."""
    return judge(prompt, answer)


def labelers(seed: int, num: int = 40, recipe: WorldRecipe | None = None) -> tuple[SimulatedLabeler, ...]:
    """Draw `num` labelers. Names are `labeler-<seed>-01` and on."""
    recipe = recipe or WorldRecipe()
    generator = python_random(seed, "labelers")
    likings, noises = _spread(generator, 0.0, 2.0, num), _spread(generator, 0.6, 1.4, num)
    drawn = []
    for number in range(1, num + 1):
        weights = [generator.uniform(0.45, 0.75), generator.uniform(0.1, 0.35), generator.uniform(0.1, 0.35)]
        total = sum(weights)
        drawn.append(
            SimulatedLabeler(
                name=f"labeler-{seed}-{number:02d}",
                helpful=weights[0] / total,
                honest=weights[1] / total,
                harmless=weights[2] / total,
                length=recipe.length_liking * likings[number - 1],
                noise=recipe.labeler_noise * noises[number - 1],
                step=recipe.labeler_step,
            )
        )
    return tuple(drawn)


def _spread(generator: random.Random, low: float, high: float, number: int) -> list[float]:
    """Return evenly spaced values between the bounds in random order, so that every population has the same mean."""
    values = [low + (high - low) * (place + 0.5) / number for place in range(number)]
    generator.shuffle(values)
    return values


def flags(prompt: Prompt, answer: str) -> list[str]:
    """Return those of the eleven flags that hold."""
    judgement = judged(prompt, answer)
    harmful = judgement.harmless < 0.5
    violent = not Said(answer).words.isdisjoint({"hit", "kill", "burn", "hurt", "poison"} & harm_words())
    holds = {
        "fails_task": judgement.helpful < 0.5,
        "inappropriate": judgement.harmless == 0.0,
        "hallucination": judgement.honest < 0.5,
        "satisfies_constraint": judgement.constraints_met,
        "violent": harmful and violent,
        "encourages_harm": harmful and prompt.truth.rule == "refuse",
        "denigrates": judgement.harmless == 0.0 and prompt.truth.rule != "refuse",
        "harmful_advice": harmful and prompt.truth.rule == "refuse",
    }
    return [flag for flag in FLAGS if holds.get(flag, False)]


def preference_probability(
    labeler: SimulatedLabeler, prompt: Prompt, first: str, second: str
) -> tuple[float, float, float]:
    """Return the exact probabilities that the labeler prefers the first, ties, prefers the second, over the noise."""
    if first == second:
        return 0.0, 1.0, 0.0
    return _preference(labeler.utility(judged(prompt, first)), labeler.utility(judged(prompt, second)), labeler)


@lru_cache(maxsize=65536)
def _preference(first: float, second: float, labeler: SimulatedLabeler) -> tuple[float, float, float]:
    """Sum over the grades within eight standard deviations of both utilities."""
    reach = 8 * labeler.noise
    lowest = math.floor((min(first, second) - reach) / labeler.step)
    highest = math.ceil((max(first, second) + reach) / labeler.step)
    edges = [grade * labeler.step for grade in range(lowest, highest + 1)]
    first_below = [_below(edge, first, labeler.noise) for edge in edges]
    second_below = [_below(edge, second, labeler.noise) for edge in edges]
    wins = losses = ties = 0.0
    for grade in range(len(edges) - 1):
        first_here = first_below[grade + 1] - first_below[grade]
        second_here = second_below[grade + 1] - second_below[grade]
        wins += first_here * second_below[grade]
        losses += second_here * first_below[grade]
        ties += first_here * second_here
    return wins, ties, losses


def _below(edge: float, mean: float, deviation: float) -> float:
    """Return the normal distribution's CDF."""
    return 0.5 * math.erfc((mean - edge) / (deviation * math.sqrt(2)))


Comparison = tuple[Prompt, str, str]


def comparisons_of(prompt: Prompt, responses: Iterable[str]) -> list[Comparison]:
    """Return all pairs of different texts among the responses."""
    distinct = list(dict.fromkeys(responses))
    return [(prompt, first, second) for place, first in enumerate(distinct) for second in distinct[place + 1 :]]


def best_possible_accuracy(population: Sequence[SimulatedLabeler], comparisons: Iterable[Comparison]) -> float:
    """Return the highest accuracy that any fixed judge can expect on strict preferences of a random labeler.

    For each pair the best judge says what more of the strict preferences say:
    sum over pairs of max(mean P(first), mean P(second)) / sum over pairs of (mean P(first) + mean P(second)).
    Pairs of identical answers do not count.
    """
    best = strict = 0.0
    for prompt, first, second in comparisons:
        likely = [preference_probability(labeler, prompt, first, second) for labeler in population]
        wins, losses = sum(p[0] for p in likely), sum(p[2] for p in likely)
        best += max(wins, losses)
        strict += wins + losses
    return best / strict if strict else float("nan")


def agreement(population: Sequence[SimulatedLabeler], comparisons: Iterable[Comparison]) -> float:
    """Return the probability that two different random labelers who both order a random pair order it alike.

    sum over pairs and couples i != j of (w_i w_j + l_i l_j) / sum of (w_i + l_i)(w_j + l_j), with w and l the
    probabilities of either strict preference.
    """
    alike = both = 0.0
    for prompt, first, second in comparisons:
        likely = [preference_probability(labeler, prompt, first, second) for labeler in population]
        wins, losses = [p[0] for p in likely], [p[2] for p in likely]
        orders = [win + loss for win, loss in zip(wins, losses, strict=True)]
        alike += _cross(wins) + _cross(losses)
        both += _cross(orders)
    return alike / both if both else float("nan")


def _cross(values: Sequence[float]) -> float:
    """Return the sum of products over ordered couples of different places: (sum)^2 - sum of squares."""
    return sum(values) ** 2 - sum(value * value for value in values)


def ranking_row(
    prompt: Prompt, responses: Sequence[str], labeler: SimulatedLabeler, *, round_number: int = 1
) -> dict[str, Any]:
    """Return the ranking record of one labeler's work on one prompt."""
    label = labeler.label(prompt, responses)
    return {
        "id": f"ranking-{prompt.id}-{labeler.name}",
        "messages": list(prompt.messages),
        "responses": list(responses),
        **label,
        "kind": prompt.kind,
        "round": round_number,
    }
