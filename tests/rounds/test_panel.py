"""Who ranks what: three groups that never mix."""

from collections import Counter

import pytest

from sanbai.data.rankings import Ranking
from sanbai.foundation.errors import DataError, UsageError
from sanbai.rounds.panel import RankingsByUse, split_panel, split_rankings
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


def test_a_recipe_may_ask_several_of_each_group() -> None:
    panel = split_panel(NAMES, RECIPE)
    recipe = LabelRecipe(rankings_per_prompt=3, judge_rankings_per_prompt=2)
    names = panel.assign(task(1, heldout=False), recipe, seed=1)
    assert len(set(names) & set(panel.training)) == 3
    assert len(set(names) & set(panel.judge)) == 2
    assert len(names) == 5


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
    split = split_rankings(
        [ranking(name) for name in (NAMES[0], NAMES[25], NAMES[39], "ada", "model:m")], panel, model_share=0.0, seed=1
    )
    assert [one.labeler for one in split.training] == [NAMES[0], "ada"]
    assert [one.labeler for one in split.judge] == [NAMES[25]]
    assert [one.labeler for one in split.heldout] == [NAMES[39]]


@pytest.mark.parametrize("num", range(7, 41))
def test_fewer_labelers_are_taken_from_every_group_and_stay_in_theirs(num: int) -> None:
    panel = split_panel(NAMES, RECIPE)
    chosen = panel.choose(num, RECIPE)
    assert len(chosen.everyone) == num
    assert len(chosen.heldout) >= RECIPE.rankings_per_heldout_prompt
    assert chosen.training
    assert chosen.judge
    for group in ("training", "judge", "heldout"):
        assert set(getattr(chosen, group)) <= set(getattr(panel, group))
    assert chosen.assign(task(1, heldout=True), RECIPE, seed=1)


def test_all_of_them_are_the_panel_itself() -> None:
    panel = split_panel(NAMES, RECIPE)
    assert panel.choose(40, RECIPE) == panel


@pytest.mark.parametrize("num", [1, 6, 41])
def test_a_number_that_leaves_a_group_empty_or_exceeds_them_is_refused(num: int) -> None:
    with pytest.raises(UsageError, match=f"{num} simulated labelers; wanted 7 to 40"):
        split_panel(NAMES, RECIPE).choose(num, RECIPE)


def test_a_use_without_rankings_is_named_with_what_to_do() -> None:
    some = [ranking("ada")]
    RankingsByUse(some, some, some).check()
    with pytest.raises(DataError, match=r"no rankings for the second judge; .* --simulated-labelers 40"):
        RankingsByUse(some, [], some).check()


def test_several_rankings_a_prompt_need_more_labelers() -> None:
    recipe = LabelRecipe(rankings_per_prompt=3, judge_rankings_per_prompt=2)
    panel = split_panel(NAMES, recipe)
    with pytest.raises(UsageError, match="wanted 9 to 40"):
        panel.choose(8, recipe)
    chosen = panel.choose(9, recipe)
    assert len(chosen.assign(task(1, heldout=False), recipe, seed=1)) == 5


def test_the_judges_labelers_see_their_share_of_the_prompts() -> None:
    recipe = LabelRecipe(judge_share=0.25)
    panel = split_panel([f"l{number:02d}" for number in range(40)], recipe)
    tasks = [task(number, heldout=False) for number in range(400)]
    by_judge = sum(not {*panel.assign(task, recipe, seed=1)}.isdisjoint(panel.judge) for task in tasks)
    assert 70 <= by_judge <= 130
