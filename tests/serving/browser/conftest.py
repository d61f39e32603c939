"""A browser that may talk to the server under test alone, and that forgives no error on its console."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright
from tests.serving.browser.site import Site, open_site

from sanbai.feedback.accounts import Account, Role, add_account, open_session
from sanbai.serving.access import COOKIE

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip(f"{CHROMIUM}: no such browser; install Debian's package chromium to try the pages")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site"), answer_tokens=120) as opened:
        yield opened


@pytest.fixture
def tolerated() -> list[str]:
    """Pieces of console messages that a test provokes on purpose."""
    return []


@pytest.fixture
def context(browser: Browser, site: Site, tolerated: list[str]) -> Iterator[BrowserContext]:
    """A fresh profile; at the end no request may have left the origin, no error may stand on the console."""
    opened = browser.new_context(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(15_000)
    strangers: list[str] = []
    errors: list[str] = []

    def note_request(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and f"{parts.scheme}://{parts.netloc}" != site.url:
            strangers.append(request.url)

    opened.on("request", note_request)
    opened.on("console", lambda message: errors.append(message.text) if message.type in {"error", "warning"} else None)
    opened.on("weberror", lambda error: errors.append(str(error.error)))
    yield opened
    opened.close()
    assert strangers == []
    assert [error for error in errors if not any(piece in error for piece in tolerated)] == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def sign_in(context: BrowserContext, site: Site) -> Callable[[Role], Account]:
    """Make an account of its own for the test and sign the browser in."""

    def make(role: Role) -> Account:
        account = add_account(site.store, f"{role}-{next(_numbers)}", role)
        _, cookie = open_session(site.store, account)
        context.add_cookies([{"name": COOKIE, "value": cookie, "url": site.url}])
        return account

    return make


@pytest.fixture
def chat(page: Page, site: Site, sign_in: Callable[[Role], Account]) -> Account:
    """An account of its own on an empty chat page."""
    account = sign_in("user")
    page.goto(site.url)
    expect(page.get_by_test_id("welcome")).to_be_visible()
    return account


def ask(page: Page, text: str) -> None:
    page.get_by_test_id("composer").fill(text)
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("user").last).to_contain_text(text)


def wait_for_answer(page: Page) -> None:
    expect(page.get_by_test_id("assistant").last.get_by_test_id("signature")).to_be_visible(timeout=30_000)
    expect(page.get_by_test_id("stop")).to_be_hidden()
