"""Who is asked: simulated labelers in three groups that never mix, and which tasks each of them is given.

The reward model is trained on one group, the second judge on another, and the third only measures. People belong to
the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sanbai.data.rankings import Ranking
from sanbai.foundation.errors import DataError, UsageError
from sanbai.foundation.seeds import python_random
from sanbai.rounds.model_labeler import cap_share
from sanbai.rounds.tasks import LabelRecipe, Task


@dataclass(frozen=True)
class Panel:
    """Names of the simulated labelers by group."""

    training: tuple[str, ...]
    judge: tuple[str, ...]
    heldout: tuple[str, ...]

    @property
    def everyone(self) -> tuple[str, ...]:
        """All names."""
        return (*self.training, *self.judge, *self.heldout)

    def choose(self, num: int, recipe: LabelRecipe) -> Panel:
        """Return `num` of the labelers, from each group its share and enough to do its work.

        Who is left out stays in their group: the whole panel sorts the rankings of all rounds.

        Raises:
            UsageError: more than there are, or too few for three groups.
        """
        total = len(self.everyone)

        def sizes(wanted: int) -> tuple[int, int, int]:
            judge = max(recipe.judge_rankings_per_prompt, -(-wanted * len(self.judge) // total))
            heldout = max(recipe.rankings_per_heldout_prompt, -(-wanted * len(self.heldout) // total))
            return wanted - judge - heldout, judge, heldout

        fewest = next(wanted for wanted in range(1, total + 1) if sizes(wanted)[0] >= recipe.rankings_per_prompt)
        if not fewest <= num <= total:
            raise UsageError(f"{num} simulated labelers; wanted {fewest} to {total}, so that no group is too small")
        training, judge, heldout = sizes(num)
        return Panel(self.training[:training], self.judge[:judge], self.heldout[:heldout])

    def assign(self, task: Task, recipe: LabelRecipe, *, seed: int) -> tuple[str, ...]:
        """Return who ranks a task: as many of the first two groups, or of the third, as the recipe asks for."""
        generator = python_random(seed, "assign", task.id)
        if task.heldout:
            return tuple(sorted(generator.sample(self.heldout, recipe.rankings_per_heldout_prompt)))
        training = generator.sample(self.training, recipe.rankings_per_prompt)
        is_judged = generator.random() < recipe.judge_share
        judge = generator.sample(self.judge, recipe.judge_rankings_per_prompt) if is_judged else []
        return (*sorted(training), *sorted(judge))


def split_panel(names: Sequence[str], recipe: LabelRecipe) -> Panel:
    """Divide labelers into the recipe's groups, by their order."""
    first_heldout = len(names) - recipe.num_heldout_labelers
    first_judge = first_heldout - recipe.num_judge_labelers
    return Panel(tuple(names[:first_judge]), tuple(names[first_judge:first_heldout]), tuple(names[first_heldout:]))


@dataclass(frozen=True)
class RankingsByUse:
    """Rankings by what they may be used for."""

    training: list[Ranking]
    judge: list[Ranking]
    heldout: list[Ranking]

    def check(self) -> None:
        """Make sure that a round can be run on them.

        Raises:
            DataError: one of the three uses has no ranking.
        """
        uses = {"the reward model": self.training, "the second judge": self.judge, "measuring": self.heldout}
        if missing := [use for use, rankings in uses.items() if not rankings]:
            raise DataError(
                f"no rankings for {' nor for '.join(missing)}; rank some answers at /label (people's rankings teach "
                "the reward model), and give --simulated-labelers 40 for the rest"
            )


def split_rankings(rankings: Iterable[Ranking], panel: Panel, *, model_share: float, seed: int) -> RankingsByUse:
    """Sort rankings by their labeler's group; whoever is not on the panel is a person, or a model, and trains.

    Args:
        rankings: of any round.
        panel: all simulated labelers.
        model_share: the most that models' rankings may make of those that train; the others of them are left out.
        seed: draws which.
    """
    split = RankingsByUse([], [], [])
    for ranking in rankings:
        if ranking.labeler in panel.judge:
            split.judge.append(ranking)
        elif ranking.labeler in panel.heldout:
            split.heldout.append(ranking)
        else:
            split.training.append(ranking)
    return replace(split, training=cap_share(split.training, model_share, seed=seed))
