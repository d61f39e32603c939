from __future__ import annotations

from sanbai.evaluation.village_choices import village_choice_tasks
from sanbai.world.village import make_village


def test_questions_have_one_right_answer_and_share_nothing_with_their_examples() -> None:
    village = make_village(1)
    tasks = village_choice_tasks(village, seed=1, num_items=8)
    assert {"riddle", "sum"} <= {task.name for task in tasks}
    for task in tasks:
        assert not {item.id for item in task.items} & {item.id for item in task.pool}
        assert len({item.question for item in task.items}) == len(task.items)
        for item in [*task.items, *task.pool]:
            assert len(item.choices) >= 2
            assert len(set(item.choices)) == len(item.choices)
            assert 0 <= item.answer < len(item.choices)


def test_the_right_answer_stands_at_no_fixed_place_and_the_seed_decides() -> None:
    village = make_village(1)
    (sums,) = [task for task in village_choice_tasks(village, seed=1, num_items=30) if task.name == "sum"]
    assert len({item.answer for item in sums.items}) > 1
    assert village_choice_tasks(village, seed=1, num_items=8) == village_choice_tasks(village, seed=1, num_items=8)
    assert village_choice_tasks(village, seed=1, num_items=8) != village_choice_tasks(village, seed=2, num_items=8)


def test_arithmetic_answers_are_right() -> None:
    (sums,) = [task for task in village_choice_tasks(make_village(1), seed=3, num_items=20) if task.name == "sum"]
    for item in sums.items:
        numbers = [int(word) for word in item.question.replace("?", " ").replace(".", " ").split() if word.isdigit()]
        if len(numbers) == 2:
            right = item.choices[item.answer]
            said = {int("".join(filter(str.isdigit, word))) for word in right.split() if any(map(str.isdigit, word))}
            assert said & {sum(numbers), numbers[0] - numbers[1], numbers[1] - numbers[0]}
