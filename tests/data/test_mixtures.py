from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sanbai.data.mixtures import (
    InstructionMixture,
    InstructionSource,
    InstructionTask,
    mixing_rates,
    read_instruction_tasks,
)
from sanbai.foundation.errors import DataError, RecipeError


def task(name: str, num: int) -> InstructionTask:
    rows = [{"word": f"{name}{number}", "answer": str(number)} for number in range(num)]
    return InstructionTask(name, rows, (("What is {word}?", "{answer}"), ("Tell me {word}.", "It is {answer}.")))


def test_rates_are_capped_proportions_as_worked_by_hand() -> None:
    np.testing.assert_allclose(mixing_rates([100, 3000, 90_000], cap=3000), [100 / 6100, 3000 / 6100, 3000 / 6100])
    np.testing.assert_allclose(mixing_rates([1, 16], cap=100, temperature=2.0), [1 / 5, 4 / 5])
    np.testing.assert_allclose(mixing_rates([1, 16], cap=100, temperature=1e9), [0.5, 0.5], rtol=1e-6)


def test_tasks_and_templates_come_at_their_rates() -> None:
    tasks = [task("a", 5), task("b", 10), task("c", 400)]
    mixture = InstructionMixture(tasks, cap=20, seed=1)
    num = 7000
    drawn = [mixture.conversation(index) for index in range(num)]
    for each, rate in zip(tasks, (5 / 35, 10 / 35, 20 / 35), strict=True):
        mine = [one for one in drawn if one.source == each.name]
        assert abs(len(mine) - rate * num) < 4 * (num * rate * (1 - rate)) ** 0.5
        asked = sum(one.messages[0]["content"].startswith("What") for one in mine)
        assert abs(asked - len(mine) / 2) < 4 * (len(mine) / 4) ** 0.5
        for one in mine:
            question, answer = (turn["content"] for turn in one.messages)
            word = question.removeprefix("What is ").removeprefix("Tell me ").rstrip("?.")
            assert word.startswith(each.name)
            assert answer in {word[1:], f"It is {word[1:]}."}
            assert question.startswith("What") is not answer.startswith("It is"), "an answer of its own template"


def test_an_example_depends_on_seed_and_number_alone() -> None:
    tasks = [task("a", 50), task("b", 50)]
    first, again, other = (InstructionMixture(tasks, cap=9, seed=seed) for seed in (1, 1, 2))
    backwards = [again.conversation(index) for index in reversed(range(40))]
    assert [first.conversation(index) for index in range(40)] == backwards[::-1]
    assert any(first.conversation(index) != other.conversation(index) for index in range(40))


def test_files_become_tasks_and_what_is_wrong_with_them_is_said(tmp_path: Path) -> None:
    rows = [{"premise": "It rains {hard}", "label": 1}, {"premise": "It is dry", "label": 0}]
    (tmp_path / "rain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = InstructionSource(name="rain", path="rain.jsonl", templates=(("{premise}. Wet?", "{label}"),))
    (found,) = read_instruction_tasks(tmp_path, [source])
    mixture = InstructionMixture([found], cap=3000, seed=1)
    said = {mixture.conversation(index).messages[0]["content"] for index in range(20)}
    assert said == {"It rains {hard}. Wet?", "It is dry. Wet?"}
    with pytest.raises(RecipeError, match="two tasks are named 'rain'"):
        read_instruction_tasks(tmp_path, [source, source])
    for template, problem in (
        ("{premis}", "no field 'premis'"),
        ("{premise", "write a brace"),
        ("{0.x}", "no field's"),
    ):
        wrong = source.model_copy(update={"templates": ((template, "{label}"),)})
        with pytest.raises((DataError, RecipeError), match=problem):
            read_instruction_tasks(tmp_path, [wrong])
    with pytest.raises(DataError, match="holds no example"):
        InstructionMixture([], cap=1, seed=1)
