"""Recipes: strict, typed, with one clear line for each mistake."""

from pathlib import Path
from typing import Self

import pytest
from pydantic import Field, model_validator

from sanbai.foundation.errors import RecipeError
from sanbai.foundation.recipe import RecipeSection, read_toml, validate_recipe


class Ppo(RecipeSection):
    """A section."""

    kl_coef: float = Field(default=0.02, ge=0)
    """Weight of the penalty."""
    num_steps: int = 10
    """Steps."""


class Tree(RecipeSection):
    """A tree of one section."""

    ppo: Ppo = Ppo()
    """The section."""


def test_a_misspelt_key_is_named_with_its_place_and_the_nearest_key() -> None:
    with pytest.raises(RecipeError) as caught:
        validate_recipe(Tree, {"ppo": {"kl_coeff": 1.0}}, source="recipes/tiny.toml")
    assert str(caught.value) == "recipes/tiny.toml: ppo.kl_coeff: unknown key; did you mean kl_coef?"
    assert caught.value.exit_code == 2


def test_a_key_like_no_other_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"r\.toml: ppo\.zzz: unknown key; known keys: kl_coef, num_steps$"):
        validate_recipe(Tree, {"ppo": {"zzz": 1}}, source="r.toml")


def test_a_value_out_of_range_shows_what_was_found() -> None:
    with pytest.raises(RecipeError, match=r"^r: ppo\.kl_coef: input should be greater than or equal to 0; found -1$"):
        validate_recipe(Tree, {"ppo": {"kl_coef": -1}}, source="r")


def test_a_section_cannot_be_changed_after_the_check() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Tree().ppo.kl_coef = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"a = ", "not valid TOML"), (b"a = '\xff'", "byte 5 is not UTF-8"), (None, "no such recipe")],
)
def test_an_unreadable_recipe_says_why(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "r.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=complaint):
        read_toml(path)


def test_a_check_over_a_whole_section_says_what_it_found_and_not_the_whole_section() -> None:
    class Pair(RecipeSection):
        low: int = 1
        high: int = 2

        @model_validator(mode="after")
        def _check(self) -> Self:
            if self.low > self.high:
                raise ValueError(f"low {self.low} exceeds high {self.high}")
            return self

    with pytest.raises(RecipeError) as error:
        validate_recipe(Pair, {"low": 3}, source="a.toml")
    assert str(error.value) == "a.toml: low 3 exceeds high 2"
