"""Every page, in light and dark and at the width of a phone: axe finds nothing serious, and nothing sticks out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from tests.serving.browser.site import Site

from sanbai.feedback.accounts import add_account, open_session
from sanbai.feedback.tasks import LabelTask, add_tasks
from sanbai.serving.access import COOKIE

pytestmark = pytest.mark.browser


def found_by_axe(page: Page) -> list[str]:
    """What axe holds to be wrong, in a line each."""
    violations = Axe().run(page).response["violations"]
    return [
        f"{violation['impact']} {violation['id']}: {node['html'][:200]}"
        for violation in violations
        for node in violation["nodes"]
    ]


@pytest.fixture(params=["light", "dark", "narrow"])
def dressed(request: pytest.FixtureRequest, browser: Browser, site: Site) -> Iterator[Page]:
    """A page in light, in dark, or 360 pixels wide; axe needs its script let in."""
    narrow = request.param == "narrow"
    opened = browser.new_context(
        viewport={"width": 360, "height": 740} if narrow else {"width": 1280, "height": 800},
        color_scheme="dark" if request.param == "dark" else "light",
        reduced_motion="reduce",
        bypass_csp=True,
    )
    account = add_account(site.store, re.sub(r"\W+", "-", request.node.name).strip("-"), "admin")
    opened.add_cookies([{"name": COOKIE, "value": open_session(site.store, account)[1], "url": site.url}])
    task = LabelTask(
        ({"role": "user", "content": f"{account.name}: which is best?"},),
        tuple(f"Answer {number}." for number in range(9)),
    )
    add_tasks(site.store, [task], assignees={task.id: [account]})
    yield opened.new_page()
    opened.close()


def fits(page: Page) -> bool:
    """Whether the page is no wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_the_chat_is_accessible(dressed: Page, site: Site) -> None:
    dressed.goto(site.url)
    expect(dressed.get_by_test_id("example")).to_have_count(3)
    assert found_by_axe(dressed) == []
    dressed.get_by_test_id("example").first.click()
    expect(dressed.get_by_test_id("signature")).to_be_visible(timeout=30_000)
    assert found_by_axe(dressed) == []
    assert fits(dressed)
    dressed.get_by_test_id("thumb-down").click()
    expect(dressed.get_by_test_id("reason-dialog")).to_be_visible()
    assert found_by_axe(dressed) == []


def test_two_drafts_are_accessible(dressed: Page, site: Site) -> None:
    dressed.goto(site.url)
    dressed.get_by_test_id("two-drafts").click()
    dressed.get_by_test_id("example").first.click()
    expect(dressed.get_by_test_id("choose-1")).to_be_enabled(timeout=30_000)
    assert found_by_axe(dressed) == []
    assert fits(dressed)


def test_the_console_is_accessible(dressed: Page, site: Site) -> None:
    dressed.goto(f"{site.url}/label")
    expect(dressed.get_by_test_id("answer-A")).to_be_focused()
    dressed.keyboard.press("1")
    dressed.keyboard.press("f")
    assert found_by_axe(dressed) == []
    assert fits(dressed)


def test_the_rounds_are_accessible(dressed: Page, site: Site) -> None:
    dressed.goto(f"{site.url}/rounds")
    expect(dressed.get_by_test_id("round-2")).to_be_visible()
    assert found_by_axe(dressed) == []
    dressed.get_by_test_id("round-2").click()
    expect(dressed.get_by_test_id("verdict")).to_be_visible()
    assert found_by_axe(dressed) == []
    assert fits(dressed)


def test_the_sign_in_is_accessible(dressed: Page, site: Site) -> None:
    dressed.context.clear_cookies()
    dressed.goto(f"{site.url}/sign-in")
    expect(dressed.get_by_test_id("password")).to_be_visible()
    assert found_by_axe(dressed) == []
    assert fits(dressed)
