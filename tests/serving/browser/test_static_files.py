"""The files of the pages keep their promises: nothing from elsewhere, nothing inline, small typed modules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sanbai.serving

STATIC = Path(sanbai.serving.__file__).parent / "static"
FILES = sorted(path for path in STATIC.rglob("*") if path.is_file())
PAGES = sorted(STATIC.glob("*.html"))
MODULES = sorted(STATIC.rglob("*.js"))
# An SVG file has to name its namespace; nobody fetches it.
SVG_NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'
MOST_LINES = 300


def named(path: Path) -> str:
    return path.relative_to(STATIC).as_posix()


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_file_names_another_server(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace(SVG_NAMESPACE, "")
    assert not re.search(r"""https?://|["'(]//[a-z]""", text, re.IGNORECASE)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_file_is_of_a_kind_that_people_write(path: Path) -> None:
    assert path.suffix in {".html", ".css", ".js", ".svg"}
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 250, "minified, or not written here"


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_page_holds_no_inline_script_or_style(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text, re.IGNORECASE)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_everything_that_a_page_links_is_there(path: Path) -> None:
    links = re.findall(r'(?:src|href)="/static/([^"]+)"', path.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (STATIC / link).is_file()] == []


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_is_small_typed_and_says_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES
    assert lines[0] == "// @ts-check"
    assert lines[1].startswith("// ")


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_imports_only_neighbours_that_exist(path: Path) -> None:
    imports = re.findall(r'^(?:import|export)[^"]*?from "([^"]+)";', path.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in imports if not name.startswith((".", "..")) or not (path.parent / name).is_file()] == []


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_runs_no_text_as_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\beval\(|new Function\(|document\.write|insertAdjacentHTML|outerHTML\s*=", text)


def test_markup_enters_the_page_at_one_place_only() -> None:
    holders = [named(path) for path in MODULES if re.search(r"\.innerHTML\s*=", path.read_text(encoding="utf-8"))]
    assert holders == ["shared/dom.js"]


def test_everything_on_disk_is_used_by_a_page() -> None:
    waiting = [link for page in PAGES for link in re.findall(r'"/static/([^"]+)"', page.read_text(encoding="utf-8"))]
    used: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in used:
            continue
        used.add(name)
        if name.endswith(".js"):
            imports = re.findall(r'(?:from |import\()"(\.[^"]+)"', (STATIC / name).read_text(encoding="utf-8"))
            waiting += [named((STATIC / name).parent.joinpath(each).resolve()) for each in imports]
    assert {named(path) for path in FILES if path not in PAGES} - used == set()
