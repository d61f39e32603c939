"""Every recipe that ships is whole, can be saved in a stock layout, and tiny and paper-scale ones share their keys."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from sanbai.cli.recipes import read_recipe
from sanbai.foundation.errors import RecipeError
from sanbai.foundation.recipe import validate_recipe
from sanbai.model.hugging_face import layout_for
from sanbai.rounds.recipe import Recipe, check_assistant
from sanbai.training.objective import misfit, new_model

FOLDER = Path(__file__).parents[2] / "recipes"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.toml"))
#: tiny -> the one with the paper's numbers.
SCALES = {
    "bert-tiny": "bert-base",
    "ernie-tiny": "ernie-base",
    "t5-tiny": "t5-base",
    "switch-tiny": "switch-base",
    "prefix-tiny": "prefix-base",
    "gpt1-tiny": "gpt1",
    "flan-tiny": "flan",
}


def keys(name: str, section: str) -> set[str]:
    values: dict[str, Any] = tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))
    return set(values[section]) - {"optimizer", "experts"}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_that_ships_is_valid_and_its_base_model_can_be_saved(name: str) -> None:
    recipe, _ = read_recipe(FOLDER / f"{name}.toml")
    assert not misfit(recipe.pretrain.objective, recipe.model)
    assert recipe.pretrain.row_length <= recipe.model.max_positions
    with torch.device("meta"):
        model = new_model(
            recipe.pretrain.objective,
            recipe.model.with_vocabulary(recipe.tokenizer.vocab_size),
            next_sentence=recipe.pretrain.next_sentence,
        )
    layout, _ = layout_for(model)
    assert layout.model_type


@pytest.mark.parametrize(("tiny", "paper"), SCALES.items())
def test_tiny_and_paper_scale_have_the_same_keys_and_the_latter_names_its_source(tiny: str, paper: str) -> None:
    values = tomllib.loads((FOLDER / f"{tiny}.toml").read_text("utf-8"))
    for section in {"model", "pretrain", "classify", "supervise"} & values.keys():
        assert keys(tiny, section) == keys(paper, section), section
    opening = (FOLDER / f"{paper}.toml").read_text("utf-8")[:400]
    assert "arXiv:" in opening or "Radford et al. 2018" in opening


def test_every_objective_has_a_tiny_recipe_and_one_at_the_papers_scale() -> None:
    objectives = {name: read_recipe(FOLDER / f"{name}.toml")[0].pretrain.objective for name in SHIPPED}
    for scale in (SCALES.keys(), SCALES.values()):
        assert {objectives[name] for name in scale} == {
            "causal",
            "prefix",
            "masked",
            "entity_masked",
            "span_corruption",
        }


def test_an_objective_that_the_model_cannot_learn_is_said_with_the_recipes_name() -> None:
    with pytest.raises(RecipeError, match=r'here.toml: pretrain.objective = "masked" wants model.masks'):
        validate_recipe(Recipe, {"pretrain": {"objective": "masked"}}, source="here.toml")
    values: dict[str, Any] = {
        "material": "files",
        "files": {"documents": [{"path": "a.txt"}]},
        "model": {"masks": ["full"]},
        "pretrain": {"objective": "entity_masked"},
    }
    with pytest.raises(RecipeError, match=r"files.names names no file"):
        validate_recipe(Recipe, values, source="here.toml")


def test_a_recipe_that_makes_no_assistant_starts_no_round() -> None:
    recipe, _ = read_recipe(FOLDER / "bert-tiny.toml")
    with pytest.raises(RecipeError, match="makes no assistant"):
        check_assistant(recipe)
