"""Recipes for commands: found by path or by the name of one that ships, checked whole, `[serve]` included."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sanbai.rounds.recipe import Recipe
    from sanbai.serving.recipe import ServeRecipe


def find_recipe(name: str) -> Path:
    """Return the file of a recipe: a path, or the name of one that ships (`quickstart`, `real`).

    Raises:
        UsageError: neither exists.
    """
    from sanbai.foundation.errors import UsageError

    path = Path(name)
    if path.is_file():
        return path
    package = Path(__file__).parent.parent
    for folder in (package / "recipes", package.parent.parent / "recipes"):
        shipped = folder / f"{name}.toml"
        if path.name == name and shipped.is_file():
            return shipped
    raise UsageError(f"{name}: no such recipe, neither a file nor one that ships with Sanbai")


def read_recipe(path: Path, *, seed: int | None = None) -> tuple[Recipe, ServeRecipe]:
    """Return the recipe and its section `[serve]`, with another seed where one is given.

    Raises:
        RecipeError: the first thing that does not fit, in one line.
    """
    from sanbai.foundation.recipe import read_toml, validate_recipe
    from sanbai.rounds.recipe import Recipe
    from sanbai.serving.recipe import ServeRecipe

    values = read_toml(path)
    serve = values.pop("serve", {})
    if seed is not None:
        values["seed"] = seed
    recipe = validate_recipe(Recipe, values, source=str(path))
    return recipe, validate_recipe(ServeRecipe, serve, source=f"{path}: serve")
