"""Write the pages of this folder from the section classes; `make reference` runs it."""  # noqa: INP001 - a script

from pathlib import Path

from sanbai.foundation.recipe_reference import reference_page
from sanbai.rounds.recipe import Recipe
from sanbai.serving.recipe import ServeRecipe

FOLDER = Path(__file__).parent


def pages() -> dict[str, str]:
    """Return name -> content of every page."""
    return {
        "recipe.md": reference_page(Recipe),
        "serve.md": reference_page(ServeRecipe, title="Section `[serve]`"),
    }


if __name__ == "__main__":
    for name, content in pages().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
