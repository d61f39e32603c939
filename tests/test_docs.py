"""Links between the pages of the documentation lead somewhere."""

import re
import runpy
import tomllib
from pathlib import Path

import click
import pytest

from sanbai.cli.main import cli
from sanbai.foundation.recipe import validate_recipe
from sanbai.rounds.recipe import Recipe
from sanbai.serving.recipe import ServeRecipe

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: str) -> set[str]:
    """The fragments that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path, *, root: Path = ROOT) -> list[str]:
    """Targets that lead out of `root`, do not exist, or have no such heading; addresses on the web are not followed."""
    broken = []
    for target in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, fragment = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        is_there = file.exists() and file.is_relative_to(root)
        if not is_there or (fragment and file.suffix == ".md" and fragment not in anchors(file.read_text("utf-8"))):
            broken.append(target)
    return broken


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_repository_resolves(path: Path) -> None:
    assert broken_links(path) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_line_of_code_leads_to_where_its_name_is_defined(path: Path) -> None:
    with_lines = runpy.run_path(str(ROOT / "docs/reference/lines.py"))["with_lines"]
    assert path.read_text("utf-8") == with_lines(path), "code has moved: run `make reference`"


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading\n[a](absent.md) [b](#no-such) [c](https://example.org) [d](#a-heading)", encoding="utf-8"
    )
    assert broken_links(page, root=tmp_path) == ["absent.md", "#no-such"]


def test_every_decision_is_numbered_once_and_has_the_four_parts() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert [path.name[:4] for path in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for path in pages:
        parts = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert parts == ["Context", "Choice", "Rejected", "Consequences"], path.name


@pytest.mark.parametrize("folder", ["decisions", "stages", "guides"])
def test_every_page_of_a_folder_is_reached_from_an_index(folder: str) -> None:
    pages = {path.name for path in (ROOT / "docs" / folder).glob("*.md")} - {"index.md"}
    indices = [path for path in (ROOT / "docs" / folder / "index.md", ROOT / "docs/index.md") if path.exists()]
    linked = {Path(target).name for path in indices for target in LINK.findall(path.read_text(encoding="utf-8"))}
    assert pages - linked == set()


CODE = re.compile(r"`([^`\n]+)`|^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\s*(?:\$ )?sanbai((?: [a-z][a-z-]*)+)(?=[\s`]|$)", re.MULTILINE)


def commands(path: Path) -> set[tuple[str, ...]]:
    """The commands of `sanbai` that a page shows as code, without their arguments."""
    shown = "\n".join(inline or block for inline, block in CODE.findall(path.read_text(encoding="utf-8")))
    return {tuple(found.split()) for found in COMMAND.findall(shown)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_on_a_page_exists(path: Path) -> None:
    for words in sorted(commands(path)):
        command: click.Command | None = cli
        for place, word in enumerate(words):
            if not isinstance(command, click.Group):
                break  # what follows is an argument
            command = command.get_command(click.Context(command), word)
            assert command is not None, f"sanbai {' '.join(words[: place + 1])}"


def examples() -> list[tuple[str, str]]:
    """Every TOML block of the documentation with the page it stands on."""
    block = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(str(path.relative_to(ROOT)), toml) for path in PAGES for toml in block.findall(path.read_text("utf-8"))]


@pytest.mark.parametrize(("page", "toml"), examples())
def test_every_recipe_on_a_page_is_valid(page: str, toml: str) -> None:
    values = tomllib.loads(toml)
    validate_recipe(ServeRecipe, values.pop("serve", {}), source=page)
    assert validate_recipe(Recipe, values, source=page).model_dump().keys() >= values.keys()
