"""Who among the labelers goes against the others.

Each labeler's strict preferences are held against those of everybody else who ordered the same two answers. People
differ, and in InstructGPT's labeling 27 of 100 such pairs were ordered differently; somebody who is wrong on purpose,
or sleeps, agrees with others in half of the pairs or less.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from sanbai.data.rankings import Ranking
from sanbai.evaluation.reward_accuracy import strict_pairs
from sanbai.evaluation.statistics import DRAWS, Estimate, bootstrap_ratio


def agreement_by_labeler(rankings: Sequence[Ranking], *, seed: int, draws: int = DRAWS) -> dict[str, Estimate]:
    """Return each labeler's share of pairs ordered as another labeler of the same two answers ordered them.

    A pair that m others ordered counts m times. Intervals come from resampling the labeler's prompts.

    Args:
        rankings: of any labelers; a ranking alone on its prompt says nothing here.
        seed: of the bootstrap.
        draws: resamples.

    Returns:
        Labeler -> share; labelers whom nobody can be held against are left out.
    """
    votes: dict[tuple[str, str, str], Counter[bool]] = defaultdict(Counter)
    said: dict[str, list[tuple[str, str, str, bool]]] = defaultdict(list)
    for ranking in rankings:
        for pair in strict_pairs([ranking]):
            first, second = sorted((pair.chosen, pair.rejected))
            votes[pair.prompt, first, second][pair.chosen == first] += 1
            said[ranking.labeler].append((pair.prompt, first, second, pair.chosen == first))
    found = {}
    for labeler, mine in sorted(said.items()):
        alike: Counter[str] = Counter()
        others: Counter[str] = Counter()
        for prompt, first, second, verdict in mine:
            count = votes[prompt, first, second]
            alike[prompt] += count[verdict] - 1  # without my own vote
            others[prompt] += count.total() - 1
        held = [prompt for prompt, number in others.items() if number]
        if held:
            found[labeler] = bootstrap_ratio(
                [alike[prompt] for prompt in held], [others[prompt] for prompt in held], seed=seed, draws=draws
            )
    return found


def against_the_others(agreement: Mapping[str, Estimate]) -> list[str]:
    """Return the labelers whose whole interval lies below one half: they order pairs the wrong way round."""
    return [labeler for labeler, estimate in agreement.items() if estimate.high < 0.5]
