from __future__ import annotations

import pytest

from sanbai.data.boilerplate import find_boilerplate
from sanbai.data.recipe import DataRecipe

FOOTER = "Visit the village hall every Monday morning."
RECIPE = DataRecipe(
    remove_recurring_lines=True, boilerplate_min_documents=20, boilerplate_share=0.1, boilerplate_min_words=6
)


def texts(num_with_footer: int, total: int) -> list[str]:
    return [f"Story {n}.\n{FOOTER}" if n < num_with_footer else f"Story {n}." for n in range(total)]


@pytest.mark.parametrize(("count", "total", "removed"), [(19, 100, 0), (20, 100, 1), (29, 300, 0), (30, 300, 1)])
def test_a_line_is_removed_from_the_number_and_the_share_of_documents_on(count: int, total: int, removed: int) -> None:
    boilerplate = find_boilerplate(texts(count, total), RECIPE)
    assert boilerplate.strip(f"Mine.\n  {FOOTER.upper()}\nEnd.")[1] == removed


def test_a_line_is_counted_once_a_document() -> None:
    boilerplate = find_boilerplate(["\n".join([FOOTER] * 50)] * 19 + ["x"], RECIPE)
    assert boilerplate.strip(FOOTER) == (FOOTER, 0)


@pytest.mark.parametrize(("line", "removed"), [("one two three four five", 0), ("one two three four five six", 1)])
def test_a_short_line_may_come_back(line: str, removed: int) -> None:
    assert find_boilerplate([f"{n}\n{line}" for n in range(50)], RECIPE).strip(f"x\n{line}")[1] == removed


def test_chinese_lines_are_counted_by_characters() -> None:
    boilerplate = find_boilerplate([f"{n}\n欢迎常来村里" for n in range(50)], RECIPE)
    assert boilerplate.strip("春天\n欢迎常来村里") == ("春天", 1)


def test_a_phrase_removes_its_line_unless_the_line_is_long() -> None:
    boilerplate = find_boilerplate(["x"], DataRecipe(boilerplate_max_words=6))
    text = "Anna bakes.\nThis page Uses Cookies today.\nShe uses cookies to feed the birds of the village.\nEnd."
    assert boilerplate.strip(text) == (text.replace("This page Uses Cookies today.\n", ""), 1)


def test_lines_that_come_back_stay_unless_asked() -> None:
    assert find_boilerplate(texts(100, 100), DataRecipe()).strip(FOOTER) == (FOOTER, 0)


@pytest.mark.parametrize(
    ("line", "removed"),
    [
        ("Home | News | Market | Contact", 1),
        ("You are reading page 1 of 12.", 1),
        ("| name | age | trade |", 0),
        ("a | b", 0),
        ("She read the first page of the book.", 0),
        ("Anna bakes cookies.", 0),
    ],
)
def test_rows_of_links_and_page_numbers_go_and_tables_stay(line: str, removed: int) -> None:
    assert find_boilerplate([], DataRecipe()).strip(f"Story.\n{line}\nEnd.")[1] == removed
