from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select
from tests.serving.browser.site import Site

from sanbai.feedback import schema
from sanbai.feedback.accounts import Account
from sanbai.feedback.consent import find_consent
from sanbai.feedback.tasks import LabelTask, add_tasks

pytestmark = pytest.mark.browser

RESPONSES = ("He does: he is her only son.", "No.", "I do not know.", "He likes painting, I think.")


@pytest.fixture
def labeler(page: Page, sign_in: Callable[[str], Account]) -> Account:
    return sign_in("labeler")


def give(site: Site, labeler: Account, *, num_tasks: int = 1, responses: Sequence[str] = RESPONSES) -> list[LabelTask]:
    """Tasks for this labeler alone."""
    tasks = [
        LabelTask(
            messages=({"role": "user", "content": f"{labeler.name}, {number}: does her only son like painting?"},),
            responses=tuple(responses),
        )
        for number in range(num_tasks)
    ]
    add_tasks(site.store, tasks, assignees={task.id: [labeler] for task in tasks})
    return tasks


def open_console(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/label")
    expect(page.get_by_test_id("answer-A")).to_be_focused()


def shown(page: Page, letter: str) -> int:
    """The position in the task of the answer shown under a letter."""
    text = page.get_by_test_id(f"answer-{letter}").locator(".prose").inner_text().strip()
    return RESPONSES.index(text)


def kept(site: Site, labeler: Account) -> list[dict[str, object]]:
    """The labeler's answers with their ratings by position, oldest first."""
    ranking, rating = schema.ranking, schema.rating
    with site.store.read() as connection:
        rows = connection.execute(
            select(ranking).where(ranking.c.account_id == labeler.id).order_by(ranking.c.id)
        ).all()
        return [
            {
                "buckets": row.buckets,
                "not_rankable": bool(row.not_rankable),
                "ratings": {
                    each.position: (each.likert, list(each.flags), each.note)
                    for each in connection.execute(select(rating).where(rating.c.ranking_id == row.id))
                },
            }
            for row in rows
        ]


def test_a_task_is_ranked_with_ties_ratings_and_flags_by_keyboard_alone(
    page: Page, site: Site, labeler: Account
) -> None:
    give(site, labeler)
    open_console(page, site)
    a, b, c, d = (shown(page, letter) for letter in "ABCD")
    press = page.keyboard.press
    press("2")  # A second
    press("Shift+Digit6")  # and of quality 6
    press("ArrowRight")
    press("=")  # B ties with A
    press("ArrowRight")
    press("1")  # C best
    press("f")
    press("Space")  # its first flag
    press("Escape")
    press("ArrowRight")
    press("ArrowUp")  # D from below into the last rank
    expect(page.get_by_test_id("standing-D")).to_have_text("rank 4")
    expect(page.get_by_test_id("standing-A")).to_have_text("rank 2, tied with B")
    press("n")
    page.keyboard.type("Hedges without need.")
    press("Shift+Enter")
    expect(page.get_by_test_id("empty")).to_be_visible()
    (answer,) = kept(site, labeler)
    assert [sorted(bucket) for bucket in answer["buckets"]] == [[c], sorted([a, b]), [d]]
    ratings = answer["ratings"]
    assert ratings[a] == (6, [], "")
    assert ratings[c][1] == ["fails_task"]
    assert ratings[d][2] == "Hedges without need."


def test_a_task_is_ranked_with_a_tie_by_dragging(page: Page, site: Site, labeler: Account) -> None:
    give(site, labeler)
    open_console(page, site)
    a, b, c, d = (shown(page, letter) for letter in "ABCD")
    for letter, lane in (("B", 1), ("D", 2), ("A", 2)):
        page.get_by_test_id(f"chip-{letter}").drag_to(page.get_by_test_id(f"lane-{lane}"))
    page.get_by_test_id("grip-C").scroll_into_view_if_needed()
    page.get_by_test_id("grip-C").drag_to(page.get_by_test_id("lane-4"))
    expect(page.get_by_test_id("lane-2").get_by_role("listitem")).to_have_count(2)
    page.get_by_test_id("quality-B-7").check()
    page.get_by_test_id("submit").click()
    expect(page.get_by_test_id("empty")).to_be_visible()
    (answer,) = kept(site, labeler)
    assert [sorted(bucket) for bucket in answer["buckets"]] == [[b], sorted([a, d]), [c]]
    assert answer["ratings"][b][0] == 7


def test_undo_takes_back_step_by_step(page: Page, site: Site, labeler: Account) -> None:
    give(site, labeler)
    open_console(page, site)
    page.keyboard.press("1")
    page.keyboard.press("3")
    page.keyboard.press("u")
    expect(page.get_by_test_id("standing-A")).to_have_text("rank 1")
    page.get_by_test_id("undo").click()
    expect(page.get_by_test_id("standing-A")).to_have_text("not ranked yet")
    expect(page.get_by_test_id("undo")).to_be_disabled()


def test_a_half_done_ranking_outlives_a_reload(page: Page, site: Site, labeler: Account) -> None:
    give(site, labeler)
    open_console(page, site)
    page.keyboard.press("3")
    page.keyboard.press("Shift+Digit2")
    page.reload()
    expect(page.get_by_test_id("standing-A")).to_have_text("rank 3")
    expect(page.get_by_test_id("quality-A-2")).to_be_checked()


def test_an_unfinished_ranking_is_not_sent_but_an_unrankable_task_is(page: Page, site: Site, labeler: Account) -> None:
    give(site, labeler)
    open_console(page, site)
    page.keyboard.press("1")
    page.keyboard.press("Shift+Enter")
    expect(page.get_by_test_id("notices")).to_contain_text("Not ranked yet: B, C, D")
    assert kept(site, labeler) == []
    page.keyboard.press("x")
    expect(page.get_by_test_id("not-rankable")).to_be_checked()
    page.keyboard.press("Shift+Enter")
    expect(page.get_by_test_id("empty")).to_be_visible()
    (answer,) = kept(site, labeler)
    assert answer["not_rankable"]
    assert answer["buckets"] == []


def test_one_task_follows_the_other_until_the_queue_says_why_it_is_empty(
    page: Page, site: Site, labeler: Account
) -> None:
    give(site, labeler, num_tasks=2)
    open_console(page, site)
    first = page.get_by_test_id("prompt").inner_text()
    for _ in range(2):
        expect(page.get_by_test_id("answer-A")).to_be_focused()
        for rank in "1234":
            page.keyboard.press(rank)
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+Enter")
        expect(page.get_by_text(first, exact=True)).to_have_count(0)
    expect(page.get_by_test_id("empty")).to_contain_text("nothing is open to you now", ignore_case=True)
    expect(page.get_by_test_id("progress")).to_contain_text("2 by you")
    give(site, labeler, responses=RESPONSES[:3])
    page.get_by_test_id("look-again").click()
    expect(page.get_by_test_id("answer-C")).to_be_visible()


def test_a_ranking_against_the_ratings_is_pointed_out_and_kept(page: Page, site: Site, labeler: Account) -> None:
    give(site, labeler)
    open_console(page, site)
    for rank, quality in (("1", "2"), ("2", "6"), ("3", "1"), ("4", "1")):
        page.keyboard.press(rank)
        page.keyboard.press(f"Shift+Digit{quality}")
        page.keyboard.press("ArrowRight")
    expect(page.get_by_test_id("hint")).to_contain_text("A ranks above B but has the lower quality")
    page.keyboard.press("Shift+Enter")
    expect(page.get_by_test_id("empty")).to_be_visible()
    assert len(kept(site, labeler)) == 1


def test_question_mark_shows_the_keys_and_g_the_guidelines(page: Page, site: Site, labeler: Account) -> None:
    give(site, labeler)
    open_console(page, site)
    page.keyboard.press("?")
    expect(page.get_by_test_id("help-dialog")).to_contain_text("tie")
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("help-dialog")).to_have_count(0)
    expect(page.get_by_test_id("standing-A")).to_have_text("not ranked yet")
    page.keyboard.press("g")
    expect(page.get_by_test_id("guidelines").get_by_text("Harmless", exact=True)).to_be_visible()


def test_the_console_asks_whether_rankings_may_train(page: Page, site: Site, labeler: Account) -> None:
    give(site, labeler)
    open_console(page, site)
    assert find_consent(site.store, labeler) is None
    page.get_by_test_id("consent-yes").click()
    expect(page.get_by_test_id("consent")).to_have_count(0)
    assert find_consent(site.store, labeler) is True
