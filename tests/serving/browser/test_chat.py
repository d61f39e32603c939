from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import select
from tests.serving.browser.conftest import ask, wait_for_answer
from tests.serving.browser.site import Site, long_conversation

from sanbai.feedback import schema
from sanbai.feedback.accounts import Account
from sanbai.feedback.consent import find_consent
from sanbai.feedback.conversations import add_message, list_conversations, list_messages, open_conversation
from sanbai.feedback.generations import Plan, append_piece, begin_generations, recover_generations
from sanbai.feedback.reactions import choices_of, thumbs_of

pytestmark = pytest.mark.browser


def test_an_example_is_answered_in_a_stream_and_kept(page: Page, site: Site, chat: Account) -> None:
    page.get_by_test_id("example").first.click()
    expect(page.get_by_test_id("user")).to_contain_text("only son")
    expect(page.get_by_test_id("welcome")).to_have_count(0)
    wait_for_answer(page)
    expect(page.get_by_test_id("signature")).to_have_text("policy-1 · round 1")
    (conversation,) = list_conversations(site.store, chat)
    question, answer = list_messages(site.store, chat, conversation.id)
    assert (question.role, answer.role) == ("user", "assistant")
    expect(page.get_by_test_id("conversation")).to_have_count(1)
    assert conversation.id in page.url


def test_shift_enter_breaks_the_line_and_enter_sends(page: Page, chat: Account) -> None:
    composer = page.get_by_test_id("composer")
    composer.press_sequentially("one")
    composer.press("Shift+Enter")
    composer.press_sequentially("two")
    expect(composer).to_have_value("one\ntwo")
    composer.press("Enter")
    expect(composer).to_have_value("")
    expect(page.get_by_test_id("user").get_by_test_id("body")).to_have_text("one\ntwo", use_inner_text=True)
    wait_for_answer(page)


def test_another_answer_is_a_sibling_and_the_arrows_lead_back(page: Page, chat: Account) -> None:
    ask(page, "Once more?")
    wait_for_answer(page)
    body = page.get_by_test_id("assistant").get_by_test_id("body")
    first = body.inner_text()
    page.get_by_test_id("regenerate").click()
    siblings = page.get_by_test_id("assistant").get_by_test_id("siblings")
    expect(siblings).to_contain_text("2/2", timeout=30_000)
    assert body.inner_text() != first
    page.get_by_test_id("sibling-left").click()
    expect(siblings).to_contain_text("1/2")
    assert body.inner_text() == first


def test_an_edited_message_begins_a_branch(page: Page, chat: Account) -> None:
    ask(page, "Who keeps geese?")
    wait_for_answer(page)
    page.get_by_test_id("user").hover()
    page.get_by_test_id("edit").click()
    page.get_by_test_id("edit-text").fill("Who keeps goats?")
    page.keyboard.press("Enter")
    user = page.get_by_test_id("user")
    expect(user).to_contain_text("goats")
    expect(user).to_have_count(1)
    wait_for_answer(page)
    user.get_by_test_id("sibling-left").click()
    expect(user).to_contain_text("geese")
    expect(page.get_by_test_id("assistant")).to_have_count(1)


def test_a_lost_connection_is_taken_up_where_it_broke_off(page: Page, site: Site, chat: Account) -> None:
    asked_after: list[str] = []
    seen: list[str] = []

    def break_off(route: Route) -> None:
        asked_after.append(route.request.url.partition("after=")[2])
        if len(asked_after) > 1:
            route.fallback()
            return
        whole = route.fetch()
        events = whole.text().split("\n\n")
        seen.extend(events[: max(1, len(events) // 2)])
        route.fulfill(response=whole, body="\n\n".join(seen) + "\n\n")

    page.route("**/api/generations/*/events*", break_off)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, "Do not lose a word.")
    wait_for_answer(page)
    assert asked_after[0] == ""
    assert asked_after[1] == str(len(seen) - 1)  # events count from 0
    (conversation,) = list_conversations(site.store, chat)
    answer = list_messages(site.store, chat, conversation.id)[-1]
    assistant = page.get_by_test_id("assistant")
    expect(assistant.get_by_test_id("body")).to_have_text(answer.content.strip())
    assistant.get_by_test_id("copy").click()
    expect(assistant.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == answer.content


def test_what_was_written_and_not_sent_is_still_there(page: Page, chat: Account) -> None:
    page.get_by_test_id("composer").fill("Half a question")
    page.reload()
    expect(page.get_by_test_id("composer")).to_have_value("Half a question")
    page.get_by_test_id("composer").fill("")


def test_two_drafts_stand_side_by_side_until_a_key_chooses_one(page: Page, site: Site, chat: Account) -> None:
    page.get_by_test_id("two-drafts").click()
    ask(page, "Which is better?")
    pair = page.get_by_test_id("pair")
    expect(pair.get_by_test_id("assistant")).to_have_count(2)
    expect(page.get_by_test_id("choose-2")).to_be_enabled(timeout=30_000)
    left, right = (box for box in [each.bounding_box() for each in pair.locator(".draft").all()] if box)
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]
    second = pair.get_by_test_id("assistant").nth(1).get_by_test_id("body").inner_text()
    page.keyboard.press("2")
    expect(pair).to_have_count(0)
    expect(page.get_by_test_id("assistant").get_by_test_id("body")).to_have_text(second, use_inner_text=True)
    with site.store.read() as connection:
        pairs = connection.execute(select(schema.draft_choice.c.draft_pair_id)).scalars().all()
    assert 1 in choices_of(site.store, chat, list(pairs)).values()
    page.reload()
    expect(page.get_by_test_id("assistant")).to_have_count(1)
    expect(page.get_by_test_id("assistant").get_by_test_id("body")).to_have_text(second, use_inner_text=True)


def test_a_thumb_is_kept_with_its_reason_and_comment(page: Page, site: Site, chat: Account) -> None:
    ask(page, "Is it true?")
    wait_for_answer(page)
    page.get_by_test_id("thumb-down").click()
    page.get_by_test_id("reason-wrong").check()
    page.get_by_test_id("reason-comment").fill("The miller has no goose.")
    page.get_by_test_id("dialog-accept").click()
    expect(page.get_by_test_id("reason-dialog")).to_have_count(0)
    expect(page.get_by_test_id("thumb-down")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_test_id("notices")).to_contain_text("kept")
    (conversation,) = list_conversations(site.store, chat)
    answer = list_messages(site.store, chat, conversation.id)[-1]
    thumb = thumbs_of(site.store, chat, [answer.id])[answer.id]
    assert (thumb.value, thumb.reason, thumb.comment) == (-1, "wrong", "The miller has no goose.")


def test_a_thumb_without_a_reason_counts_too(page: Page, site: Site, chat: Account) -> None:
    ask(page, "Is it good?")
    wait_for_answer(page)
    page.get_by_test_id("thumb-up").click()
    page.get_by_test_id("dialog-dismiss").click()
    expect(page.get_by_test_id("thumb-up")).to_have_attribute("aria-pressed", "true")
    (conversation,) = list_conversations(site.store, chat)
    answer = list_messages(site.store, chat, conversation.id)[-1]
    assert thumbs_of(site.store, chat, [answer.id])[answer.id].value == 1


def test_consent_is_asked_once_and_can_be_taken_back(page: Page, site: Site, chat: Account) -> None:
    assert find_consent(site.store, chat) is None
    page.get_by_test_id("consent-yes").click()
    expect(page.get_by_test_id("consent")).to_have_count(0)
    assert find_consent(site.store, chat) is True
    page.reload()
    expect(page.get_by_test_id("welcome")).to_be_visible()
    expect(page.get_by_test_id("consent")).to_have_count(0)
    page.get_by_test_id("account").click()
    page.get_by_test_id("consent-switch").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    page.get_by_test_id("account").click()
    expect(page.get_by_test_id("consent-switch")).not_to_be_checked()
    assert find_consent(site.store, chat) is False


def test_conversations_are_found_renamed_and_deleted(page: Page, site: Site, chat: Account) -> None:
    for text in ("Geese and goats", "A letter to the miller"):
        ask(page, text)
        wait_for_answer(page)
        page.get_by_test_id("new-chat").click()
        expect(page.get_by_test_id("welcome")).to_be_visible()
    entries = page.get_by_test_id("conversation")
    expect(entries).to_have_count(2)
    page.get_by_test_id("search").fill("MILLER")
    expect(entries).to_have_count(1)
    entries.hover()
    page.get_by_test_id("conversation-menu").click()
    page.get_by_role("menuitem", name="Rename").click()
    page.get_by_test_id("title").fill("The miller's letter")
    page.get_by_test_id("dialog-accept").click()
    expect(entries).to_contain_text("The miller's letter")
    entries.hover()
    page.get_by_test_id("conversation-menu").click()
    page.get_by_role("menuitem", name="Delete").click()
    page.get_by_test_id("dialog-accept").click()
    page.get_by_test_id("search").fill("")
    expect(entries).to_have_count(1)
    assert [one.title for one in list_conversations(site.store, chat)] == ["Geese and goats"]


def test_what_could_not_be_sent_can_be_sent_again(page: Page, chat: Account, tolerated: list[str]) -> None:
    tolerated.append("ERR_FAILED")
    page.route(
        "**/api/conversations", lambda route: route.abort() if route.request.method == "POST" else route.fallback()
    )
    ask(page, "Are you there?")
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    page.unroute("**/api/conversations")
    page.get_by_test_id("retry").click()
    wait_for_answer(page)
    expect(page.get_by_test_id("user")).to_have_count(1)
    expect(page.get_by_test_id("assistant")).to_have_count(1)


def test_an_answer_cut_off_by_the_servers_end_can_be_had_again(page: Page, site: Site, chat: Account) -> None:
    conversation = open_conversation(site.store, chat)
    question = add_message(site.store, chat, conversation, content="Are you still there?")
    (generation,) = begin_generations(site.store, question, [Plan("policy-1", {}, 0, 5)], drafts=False)
    append_piece(site.store, generation, 0, "The miller")
    recover_generations(site.store)
    page.goto(f"{site.url}/?c={conversation}")
    expect(page.get_by_test_id("assistant")).to_contain_text("The miller")
    expect(page.get_by_role("alert")).to_contain_text("The server went away before the end.")
    page.get_by_test_id("retry").click()
    expect(page.get_by_test_id("assistant").get_by_test_id("siblings")).to_contain_text("2/2")
    wait_for_answer(page)


def test_a_long_conversation_opens_at_its_end(page: Page, site: Site, chat: Account) -> None:
    conversation = long_conversation(site.store, chat, num_messages=500)
    page.goto(f"{site.url}/?c={conversation}")
    expect(page.get_by_text("Answer number 499")).to_be_in_viewport()
    assert page.locator(".message").count() == 500
