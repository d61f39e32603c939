from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from tests.serving.browser.site import Site

from sanbai.feedback.accounts import add_account, check_password, make_sign_in_token

pytestmark = pytest.mark.browser

PASSWORD = "three hundred poems"


def test_a_one_time_link_signs_in_once_and_asks_for_a_password(page: Page, site: Site) -> None:
    account = add_account(site.store, "newcomer", "user")
    token = make_sign_in_token(site.store, account)
    page.goto(f"{site.url}/sign-in?token={token}")
    page.get_by_test_id("new-password").fill(PASSWORD)
    assert token not in page.url
    page.get_by_test_id("new-password-again").fill("something else")
    page.get_by_test_id("accept").click()
    expect(page.get_by_test_id("trouble")).to_have_text("The two passwords are not the same.")
    page.get_by_test_id("new-password-again").fill(PASSWORD)
    page.get_by_test_id("accept").click()
    expect(page.get_by_test_id("welcome")).to_be_visible()
    assert check_password(site.store, "newcomer", PASSWORD) is not None


def test_name_and_password_lead_to_the_page_that_was_asked_for(page: Page, site: Site) -> None:
    site.add_account("returning", "user", password=PASSWORD)
    page.goto(f"{site.url}/rounds")
    page.get_by_test_id("name").fill("returning")
    page.get_by_test_id("password").fill(PASSWORD)
    page.get_by_test_id("accept").click()
    expect(page.get_by_role("heading", name="Rounds")).to_be_visible()
    page.get_by_test_id("account").click()
    page.get_by_test_id("sign-out").click()
    expect(page.get_by_test_id("password")).to_be_visible()
    page.goto(site.url)
    expect(page.get_by_test_id("password")).to_be_visible()


def test_a_spent_link_and_a_wrong_password_are_refused_in_words(page: Page, site: Site, tolerated: list[str]) -> None:
    tolerated.append("status of 401")
    page.goto(f"{site.url}/sign-in?token=spent")
    expect(page.get_by_test_id("trouble")).to_contain_text("sign-in link")
    page.get_by_test_id("name").fill("nobody")
    page.get_by_test_id("password").fill("not the password")
    page.get_by_test_id("accept").click()
    expect(page.get_by_test_id("trouble")).to_contain_text("do not fit")


def test_the_page_goes_on_to_no_other_server(page: Page, site: Site) -> None:
    site.add_account("wary", "user", password=PASSWORD)
    page.goto(f"{site.url}/sign-in?next=//example.org/")
    page.get_by_test_id("name").fill("wary")
    page.get_by_test_id("password").fill(PASSWORD)
    page.get_by_test_id("accept").click()
    expect(page.get_by_test_id("welcome")).to_be_visible()
    assert page.url.startswith(site.url)
