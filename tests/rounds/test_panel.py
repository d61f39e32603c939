"""Who ranks what: three groups that never mix."""

from collections import Counter

from sanbai.data.rankings import Ranking
from sanbai.rounds.panel import split_panel, split_rankings
from sanbai.rounds.tasks import LabelRecipe, Task

NAMES = [f"labeler-{number:02d}" for number in range(40)]
RECIPE = LabelRecipe()


def task(number: int, *, heldout: bool) -> Task:
    return Task(f"task-{number}", ({"role": "user", "content": "?"},), ("a", "b"), "chat", heldout)


def ranking(labeler: str) -> Ranking:
    return Ranking("r", ({"role": "user", "content": "?"},), ("a", "b"), ((0,), (1,)), labeler)


def test_the_groups_divide_the_labelers_by_the_recipes_sizes() -> None:
    panel = split_panel(NAMES, RECIPE)
    assert [len(panel.training), len(panel.judge), len(panel.heldout)] == [24, 8, 8]
    assert sorted(panel.everyone) == NAMES


def test_training_tasks_go_to_one_labeler_of_each_training_group_and_all_get_a_share() -> None:
    panel = split_panel(NAMES, RECIPE)
    given = [panel.assign(task(number, heldout=False), RECIPE, seed=1) for number in range(2000)]
    assert all(first in panel.training and second in panel.judge for first, second in given)
    counts = Counter(first for first, _ in given)
    assert len(counts) == 24
    assert min(counts.values()) > 40  # 83 expected, deviation 9


def test_heldout_tasks_go_to_several_different_heldout_labelers() -> None:
    panel = split_panel(NAMES, RECIPE)
    for number in range(50):
        names = panel.assign(task(number, heldout=True), RECIPE, seed=1)
        assert len(set(names)) == RECIPE.rankings_per_heldout_prompt
        assert set(names) <= set(panel.heldout)


def test_an_assignment_does_not_depend_on_the_other_tasks() -> None:
    panel = split_panel(NAMES, RECIPE)
    assert panel.assign(task(7, heldout=False), RECIPE, seed=1) == panel.assign(task(7, heldout=False), RECIPE, seed=1)


def test_people_train_and_heldout_labelers_never_do() -> None:
    panel = split_panel(NAMES, RECIPE)
    split = split_rankings([ranking(name) for name in (NAMES[0], NAMES[25], NAMES[39], "ada")], panel)
    assert [one.labeler for one in split.training] == [NAMES[0], "ada"]
    assert [one.labeler for one in split.judge] == [NAMES[25]]
    assert [one.labeler for one in split.heldout] == [NAMES[39]]
