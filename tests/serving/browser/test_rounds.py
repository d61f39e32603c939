from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect
from tests.serving.browser.site import Site

from sanbai.feedback import registry
from sanbai.feedback.accounts import Account

pytestmark = pytest.mark.browser


@pytest.fixture
def served_again(site: Site) -> Iterator[None]:
    """Whatever a test puts into service, round 1 serves afterwards."""
    yield
    deployment = registry.served(site.store)
    if deployment is None or deployment.round != 1:
        registry.serve(site.store, "policy-1", round=1, actor="test")


def test_the_list_shows_each_round_and_which_one_serves(
    page: Page, site: Site, sign_in: Callable[[str], Account]
) -> None:
    sign_in("user")
    page.goto(f"{site.url}/rounds")
    expect(page.get_by_test_id("round-1").get_by_test_id("served-mark")).to_be_visible()
    expect(page.get_by_test_id("round-2")).to_contain_text("Refused by the gate")
    expect(page.get_by_test_id("round-2").get_by_test_id("served-mark")).to_have_count(0)
    expect(page.get_by_test_id("rollback")).to_have_count(0)


def test_a_round_shows_its_data_models_measures_plots_and_verdict(
    page: Page, site: Site, sign_in: Callable[[str], Account]
) -> None:
    sign_in("user")
    page.goto(f"{site.url}/rounds")
    page.get_by_test_id("round-2").click()
    expect(page.get_by_test_id("verdict")).to_contain_text("The gate refuses it")
    expect(page.get_by_test_id("verdict")).to_contain_text("0.530 [0.490, 0.570]")
    expect(page.get_by_test_id("worse")).to_contain_text("harmless -0.050")
    expect(page.get_by_test_id("data")).to_contain_text("Rankings by people")
    expect(page.get_by_test_id("model-policy-2")).to_contain_text("from supervised")
    expect(page.get_by_test_id("metric-helpful")).to_contain_text("70.0 %")
    expect(page.get_by_test_id("metric-helpful")).to_contain_text("66.0 – 74.0 %")
    plot = page.get_by_test_id("plot-reward_kl")
    plot.scroll_into_view_if_needed()
    expect(plot).to_have_js_property("complete", value=True)
    assert plot.evaluate("image => image.naturalWidth") > 0
    expect(page.get_by_test_id("events")).to_contain_text("the win rate may be one half")
    expect(page.get_by_test_id("promote")).to_have_count(0)
    page.get_by_test_id("report").click()
    expect(page.get_by_role("heading", name="The whole report")).to_be_visible()


@pytest.mark.usefixtures("served_again")
def test_a_refused_round_is_promoted_with_a_reason_alone_and_rolled_back(
    page: Page, site: Site, sign_in: Callable[[str], Account]
) -> None:
    admin = sign_in("admin")
    page.goto(f"{site.url}/rounds?n=2")
    page.get_by_test_id("promote").click()
    page.get_by_test_id("dialog-accept").click()
    expect(page.get_by_test_id("promote-dialog")).to_be_visible()
    assert registry.served(site.store).model == "policy-1"
    page.get_by_test_id("override-reason").fill("The labelers saw what the gate could not.")
    page.get_by_test_id("dialog-accept").click()
    expect(page.get_by_test_id("served-mark").first).to_be_visible()
    deployment = registry.served(site.store)
    assert (deployment.model, deployment.kind, deployment.actor) == ("policy-2", "override", admin.name)
    assert deployment.reason == "The labelers saw what the gate could not."

    page.goto(site.url)
    expect(page.get_by_test_id("served-model")).to_have_text("policy-2 · round 2")

    page.goto(f"{site.url}/rounds")
    page.get_by_test_id("rollback").click()
    page.get_by_test_id("dialog-dismiss").click()
    assert registry.served(site.store).model == "policy-2"
    page.get_by_test_id("rollback").click()
    page.get_by_test_id("dialog-accept").click()
    expect(page.get_by_test_id("round-1").get_by_test_id("served-mark")).to_be_visible()
    expect(page.get_by_test_id("round-2")).to_contain_text("Rolled back")
    assert registry.served(site.store).model == "policy-1"


def test_an_unknown_round_is_said_to_be_unknown(
    page: Page, site: Site, sign_in: Callable[[str], Account], tolerated: list[str]
) -> None:
    tolerated.append("status of 404")
    sign_in("user")
    page.goto(f"{site.url}/rounds?n=77")
    expect(page.get_by_test_id("trouble")).to_contain_text("no such round")
