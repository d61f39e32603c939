"""What the stages are fed: prompts that never serve two purposes, documents and demonstrations that repeat."""

from __future__ import annotations

from itertools import combinations, islice
from pathlib import Path
from typing import get_args

import pytest

from sanbai.data.rankings import Ranking
from sanbai.foundation.errors import DataError
from sanbai.rounds.material import FilesMaterial, Purpose, WorldMaterial, open_material
from sanbai.rounds.recipe import Recipe
from sanbai.world.labelers import ranking_row

WORLD = WorldMaterial(Recipe(num_demonstrations=20))
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
NUM = 30


def files_recipe(folder: Path, num: int = 200) -> Recipe:
    rows = [f'{{"prompt": "Question {n}", "chosen": "yes {n}", "rejected": "no {n}"}}' for n in range(num)]
    (folder / "comparisons.jsonl").write_text("\n".join(rows))
    (folder / "talk.jsonl").write_text('{"messages": [{"role": "user", "content": "?"}]}')
    (folder / "book.txt").write_text("Once.")
    return Recipe.model_validate(
        {
            "material": "files",
            "files": {
                "documents": [{"path": "book.txt"}],
                "demonstrations": [{"path": "talk.jsonl"}],
                "preferences": [{"path": "comparisons.jsonl", "layout": "chosen"}],
            },
            "model": {"max_positions": 4096},
        }
    )


def test_what_measures_shares_no_prompt_with_what_trains() -> None:
    found = {purpose: {prompt.id for prompt in WORLD.prompts(purpose, NUM)} for purpose in PURPOSES}
    for trains in ("label", "people", "practise"):
        for measures in ("label-heldout", "watch", "evaluate"):
            assert not found[trains] & found[measures]
    assert not found["evaluate"] & (found["watch"] | found["label-heldout"])


@pytest.mark.parametrize("purpose", PURPOSES)
def test_prompts_repeat_and_those_of_another_round_differ(purpose: Purpose) -> None:
    first = WORLD.prompts(purpose, NUM)
    assert first == WorldMaterial(WORLD.recipe).prompts(purpose, NUM)
    second = {prompt.id for prompt in WORLD.prompts(purpose, NUM, round=2)}
    assert len(second & {prompt.id for prompt in first}) < NUM / 2


def test_demonstrations_end_in_an_answer_and_repeat() -> None:
    shown = WORLD.demonstrations()
    assert sum(message["role"] == "assistant" for one in shown for message in one.messages) >= 20
    assert len(shown) <= 20
    assert all(one.messages[-1]["role"] == "assistant" for one in shown)
    assert shown == WorldMaterial(WORLD.recipe).demonstrations()


def test_documents_carry_nothing_of_their_planted_dirt() -> None:
    for document in islice(WORLD.documents(), 20):
        assert set(document.to_row()) <= {"id", "text", "source", "licence", "language"}


def test_the_best_possible_accuracy_lies_between_chance_and_certainty_and_passes_over_unknown_prompts() -> None:
    names = WORLD.labelers[-4:]
    rankings = [
        Ranking.from_row(ranking_row(prompt, ["I do not know.", "Yes.", prompt.truth.good[0]], labeler), where="test")
        for prompt in WORLD.judged_prompts("label-heldout", 10)
        for labeler in names
    ]
    best = WORLD.best_possible_accuracy(rankings)
    assert 0.5 < best < 1
    stranger = Ranking("r", ({"role": "user", "content": "Unasked"},), ("a", "b"), ((0,), (1,)), names[0].name)
    assert WORLD.best_possible_accuracy([*rankings, stranger]) == best


def test_each_preference_of_files_has_one_use_and_keeps_it_when_others_join(tmp_path: Path) -> None:
    few = FilesMaterial(files_recipe(tmp_path), tmp_path).preferences
    uses = [{ranking.responses[0] for ranking in part} for part in (few.training, few.judge, few.heldout)]
    assert sum(map(len, uses)) == 200
    assert all(not one & other for one, other in combinations(uses, 2))
    many = FilesMaterial(files_recipe(tmp_path, 300), tmp_path).preferences
    for part, before in zip((many.training, many.judge, many.heldout), uses, strict=True):
        assert before <= {ranking.responses[0] for ranking in part}


def test_prompts_of_files_that_watch_are_not_those_that_evaluate(tmp_path: Path) -> None:
    material = FilesMaterial(files_recipe(tmp_path), tmp_path)
    watched, evaluated, practised = (
        {prompt.id for prompt in material.prompts(purpose, 1000)} for purpose in ("watch", "evaluate", "practise")
    )
    assert watched
    assert evaluated
    assert not watched & evaluated
    assert not practised & (watched | evaluated)


def test_a_changed_file_changes_the_fingerprint_and_a_missing_one_is_named(tmp_path: Path) -> None:
    recipe = files_recipe(tmp_path)
    before = open_material(recipe, tmp_path).fingerprint()
    assert set(before) == {"book.txt", "comparisons.jsonl", "talk.jsonl"}
    (tmp_path / "book.txt").write_text("Twice.")
    after = open_material(recipe, tmp_path).fingerprint()
    assert {name for name in before if before[name] != after[name]} == {"book.txt"}
    (tmp_path / "book.txt").unlink()
    with pytest.raises(DataError, match=r"book\.txt"):
        open_material(recipe, tmp_path).fingerprint()
