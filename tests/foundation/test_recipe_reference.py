"""The reference page says what the section classes say."""

import runpy
from pathlib import Path
from typing import Literal

from pydantic import Field

from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.recipe_reference import reference_page

REFERENCE = Path(__file__).parents[2] / "docs/reference"


class Adam(RecipeSection):
    """The optimizer."""

    weight_decay: float = Field(default=0.0, ge=0, lt=1)
    """Pull towards zero."""


class Train(RecipeSection):
    """Section `[train]`."""

    num_steps: int = Field(ge=1)
    """Optimizer steps,
    counted from one."""
    rate: float = Field(default=6e-4, gt=0, le=1)
    """Peak | rate."""
    kind: Literal["fast", "slow"] = "fast"
    """Which way."""
    tied: bool = True
    """Whether tied."""
    names: tuple[str, ...] = Field(default=("a", "b"), min_length=1)
    """Some names."""
    adam: Adam = Adam(weight_decay=0.1)
    """Section `[train.adam]`."""


class Source(RecipeSection):
    """One file."""

    path: str = Field(min_length=1)
    """Where it is."""


class Whole(RecipeSection):
    """Everything."""

    train: Train = Train(num_steps=7)
    """The training."""
    sources: tuple[Source, ...] = ()
    """The files."""


def test_a_row_holds_key_type_default_range_and_description() -> None:
    lines = reference_page(Train).splitlines()
    assert "| `num_steps` | integer | **must be given** | [1, ∞) | Optimizer steps, counted from one. |" in lines
    assert r"| `rate` | number | `0.0006` | (0, 1] | Peak \| rate. |" in lines
    assert '| `kind` | `"fast"` or `"slow"` | `"fast"` |  | Which way. |' in lines
    assert "| `tied` | true or false | `true` |  | Whether tied. |" in lines
    assert '| `names` | list of text | `["a", "b"]` | [1, ∞) entries | Some names. |' in lines


def test_an_inner_section_has_its_own_heading_and_the_defaults_it_has_there() -> None:
    page = reference_page(Whole)
    assert "## `[train]`\n\nThe training.\n\nSection `[train]`." in page
    assert "| `num_steps` | integer | `7` |" in page
    assert "## `[train.adam]`\n\nThe optimizer." in page
    assert "| `weight_decay` | number | `0.1` | [0, 1) | Pull towards zero. |" in page


def test_a_list_of_sections_becomes_one_table_of_what_an_entry_holds() -> None:
    page = reference_page(Whole)
    assert "## `[[sources]]`\n\nThe files.\n\nOne file.\n\n| key |" in page
    assert "One such table for each entry of `sources`; the default has none." in page
    assert "| `path` | text | **must be given** | [1, ∞) characters | Where it is. |" in page


def test_every_key_of_a_recipe_is_on_its_page_once() -> None:
    page = reference_page(Whole)
    assert [page.count(f"| `{key}` |") for key in ("num_steps", "weight_decay", "path")] == [1, 1, 1]


def test_the_pages_in_the_documentation_are_up_to_date() -> None:
    for name, content in runpy.run_path(str(REFERENCE / "generate.py"))["pages"]().items():
        assert (REFERENCE / name).read_text(encoding="utf-8") == content, f"{name} is old; run `make reference`"
