"""Answers so long that a page is surely still reading them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from tests.serving.browser.conftest import ask, wait_for_answer
from tests.serving.browser.site import Site, open_site

from sanbai.feedback.accounts import Account
from sanbai.feedback.conversations import list_conversations, list_messages

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("endless"), answer_tokens=3500) as opened:
        yield opened


def growing_text(page: Page) -> Locator:
    """The text of the answer that is being written, once there is some."""
    body = page.locator(".streaming [data-testid=body]").last
    expect(body).to_have_text(re.compile(r"\w"), timeout=30_000)
    return body


def kept_answers(site: Site, account: Account) -> list[str]:
    (conversation,) = list_conversations(site.store, account)
    return [one.content for one in list_messages(site.store, account, conversation.id) if one.role == "assistant"]


def test_an_answer_grows_on_the_page_while_it_is_written(page: Page, chat: Account) -> None:
    ask(page, "Tell me everything.")
    body = growing_text(page)
    early = body.inner_text()
    expect(body).not_to_have_text(early, timeout=30_000)
    assert body.inner_text().startswith(early.split()[0])
    expect(page.get_by_test_id("send")).to_be_hidden()
    page.keyboard.press("Escape")
    wait_for_answer(page)


def test_escape_and_the_button_stop_an_answer_and_keep_what_is_there(page: Page, site: Site, chat: Account) -> None:
    ask(page, "Tell me everything.")
    growing_text(page)
    page.keyboard.press("Escape")
    wait_for_answer(page)
    ask(page, "Go on.")
    growing_text(page)
    page.get_by_test_id("stop").click()
    wait_for_answer(page)
    expect(page.get_by_text("Stopped here.")).to_have_count(2)
    shown = [each.inner_text() for each in page.get_by_test_id("assistant").get_by_test_id("body").all()]
    assert [text.split() for text in shown] == [text.split() for text in kept_answers(site, chat)]


def test_a_reload_in_the_middle_of_an_answer_loses_nothing(page: Page, site: Site, chat: Account) -> None:
    ask(page, "A long story, please.")
    before = growing_text(page).inner_text().split()
    page.reload()
    body = growing_text(page)
    grown = len(body.inner_text())
    page.wait_for_function("([body, grown]) => body.innerText.length > grown", arg=[body.element_handle(), grown])
    page.keyboard.press("Escape")
    wait_for_answer(page)
    shown = page.get_by_test_id("assistant").get_by_test_id("body").inner_text().split()
    assert shown[: len(before) - 1] == before[:-1]
    assert [shown] == [text.split() for text in kept_answers(site, chat)]


def test_an_answer_goes_on_while_another_conversation_is_open(page: Page, chat: Account) -> None:
    ask(page, "Take your time.")
    early = growing_text(page).inner_text()
    page.get_by_test_id("new-chat").click()
    expect(page.get_by_test_id("welcome")).to_be_visible()
    expect(page.get_by_test_id("assistant")).to_have_count(0)
    page.get_by_test_id("conversation").get_by_role("link").click()
    expect(growing_text(page)).not_to_have_text(early)
    page.keyboard.press("Escape")
    wait_for_answer(page)
