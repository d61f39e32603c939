"""The chat's routes: conversations, messages, answers as they grow, reactions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from sanbai.feedback import conversations, generations, reactions, registry
from sanbai.feedback.conversations import Message
from sanbai.feedback.generations import Generation
from sanbai.feedback.reactions import Thumb
from sanbai.serving.event_log import EventLog
from sanbai.serving.markdown import render_markdown
from sanbai.serving.problems import Problem
from sanbai.serving.routes import ID, Body, Call, PlainText, Row
from sanbai.serving.sse import PING, event_text, stream_response

LARGEST_SEED = 2**53 - 2


class Title(Body):
    """A conversation's new name."""

    title: PlainText = Field(max_length=conversations.LONGEST_TITLE)


class Question(Body):
    """What a person says; `seed` makes the answer repeatable."""

    content: PlainText
    parent_id: str | None = Field(default=None, pattern=ID.pattern + "$")
    drafts: Literal[1, 2] = 1
    seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED)


class Again(Body):
    """Another answer to the same message."""

    seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED)


class Feedback(Body):
    """A thumb on an answer."""

    kind: Literal["thumb"] = "thumb"
    value: Literal[1, -1]
    reason: PlainText = Field(default="", max_length=80)
    comment: PlainText = Field(default="", max_length=reactions.LONGEST_COMMENT)
    idempotency_key: PlainText = Field(default="", max_length=80)


class Choice(Body):
    """Which of two drafts is better."""

    choice: Literal[0, 1]
    idempotency_key: PlainText = Field(default="", max_length=80)


def welcome(call: Call) -> dict[str, Any]:
    """Greet, with examples to click on."""
    words = call.house.welcome
    examples = [{"title": example.title, "prompt": example.prompt} for example in words.examples]
    return {"greeting": words.greeting, "examples": examples}


def list_models(call: Call) -> dict[str, Any]:
    """Say which models exist and which one answers."""
    served = call.house.source.served_name
    models = [
        {"name": model.name, "kind": model.kind, "round": model.round, "served": model.name == served}
        for model in registry.list_models(call.house.store)
    ]
    return {"served": served, "models": models}


def list_conversations(call: Call) -> dict[str, Any]:
    """Return one page of the account's conversations."""
    limit = call.number("limit", 50, low=1, high=200)
    found = conversations.list_conversations(
        call.house.store, call.account, before=call.query_id("before"), limit=limit + 1
    )
    shown = [{"id": one.id, "title": one.title, "updated": one.updated / 1000} for one in found[:limit]]
    return {"conversations": shown, "more": len(found) > limit}


def open_conversation(call: Call) -> dict[str, Any]:
    """Begin an empty conversation."""
    return {"id": conversations.open_conversation(call.house.store, call.account)}


def show_conversation(call: Call) -> dict[str, Any]:
    """Return a conversation with all its branches."""
    store, account, conversation_id = call.house.store, call.account, call.part("id")
    messages = conversations.list_messages(store, account, conversation_id)
    made = generations.list_generations(store, account, conversation_id)
    return {
        "id": conversation_id,
        "title": conversations.find_title(store, account, conversation_id),
        "messages": _describe(call, messages, made),
    }


def rename_conversation(call: Call) -> dict[str, Any]:
    """Give a conversation a name."""
    conversations.set_title(call.house.store, call.account, call.part("id"), call.body(Title).title)
    return {}


def delete_conversation(call: Call) -> dict[str, Any]:
    """Delete a conversation and every text in it."""
    call.house.chat.delete(call.account, call.part("id"))
    return {}


def ask(call: Call) -> dict[str, Any]:
    """Say something and have it answered."""
    question = call.body(Question)
    said, begun = call.house.chat.ask(
        call.account,
        call.part("id"),
        question.content,
        parent_id=question.parent_id or "",
        num_drafts=question.drafts,
        seed=question.seed,
    )
    (message,) = _describe(call, [said], [])
    return {
        "message": message,
        "drafts_id": begun[0].draft_pair_id or None,
        "generations": [{"id": one.id, "message_id": one.message_id} for one in begun],
    }


def regenerate(call: Call) -> dict[str, Any]:
    """Have it answered once more."""
    begun = call.house.chat.regenerate(call.account, call.part("id"), seed=call.body(Again).seed)
    return {"generation": {"id": begun.id, "message_id": begun.message_id}}


def stop(call: Call) -> dict[str, Any]:
    """End an answer where it is."""
    call.house.chat.stop(call.account, call.part("id"))
    return {}


async def follow(call: Call) -> Response:
    """Send an answer's events from any point on."""
    text = call.request.headers.get("last-event-id") or call.request.query_params.get("after") or "-1"
    if not text.removeprefix("-").isdecimal() or len(text) > 15:
        raise Problem(400, "after: wanted the number of an event", "invalid_value", param="after")
    after = max(-1, int(text))
    log = await run_in_threadpool(call.house.chat.follow, call.account, call.part("id"), after)
    return stream_response(_texts(log, after))


async def _texts(log: EventLog, after: int) -> AsyncIterator[str]:
    async for event in log.follow(after):
        yield PING if event is None else event_text(event)


def react(call: Call) -> dict[str, Any]:
    """Keep a thumb; the answer is sent once it is on disk."""
    said = call.body(Feedback)
    thumb = Thumb(said.value, said.reason, said.comment)
    row = reactions.add_thumb(
        call.house.store, call.account, call.part("id"), thumb, idempotency_key=said.idempotency_key
    )
    return {"id": row}


def choose(call: Call) -> dict[str, Any]:
    """Keep a choice between drafts; the answer is sent once it is on disk."""
    said = call.body(Choice)
    row = reactions.choose_draft(
        call.house.store, call.account, call.part("id"), said.choice, idempotency_key=said.idempotency_key
    )
    return {"id": row}


def _describe(call: Call, messages: Sequence[Message], made: Sequence[Generation]) -> list[dict[str, Any]]:
    """Return messages as pages show them, those that still grow included."""
    store, account = call.house.store, call.account
    by_message = {one.message_id: one for one in made}
    rounds = {model.name: model.round for model in registry.list_models(store)} if made else {}
    thumbs = reactions.thumbs_of(store, account, list(by_message))
    choices = reactions.choices_of(store, account, [one.draft_pair_id for one in made if one.draft_pair_id])
    written = {message.id for message in messages}
    growing = [
        Message(one.message_id, "", one.parent_id, "assistant", call.house.chat.text_so_far(one.id))
        for one in made
        if one.message_id not in written
    ]
    described = []
    for message in sorted([*messages, *growing], key=lambda message: message.id):
        shown: dict[str, Any] = {
            "id": message.id,
            "parent_id": message.parent_id or None,
            "role": message.role,
            "content": message.content,
            "html": render_markdown(message.content),
            "state": "done",
            "model": None,
            "finish_reason": None,
            "feedback": None,
            "drafts_id": None,
        }
        if (one := by_message.get(message.id)) is not None:
            thumb, choice = thumbs.get(message.id), choices.get(one.draft_pair_id)
            shown |= {
                "generation_id": one.id,
                "model": one.plan.model,
                "round": rounds.get(one.plan.model, 0),
                "state": "streaming" if one.ending is None else one.state,
                "finish_reason": one.ending.finish_reason or None if one.ending else None,
                "feedback": thumb and {"value": thumb.value, "reason": thumb.reason, "comment": thumb.comment},
                "drafts_id": one.draft_pair_id or None,
                "chosen": None if choice is None else choice == one.position,
            }
        described.append(shown)
    return described


ROWS = (
    Row("GET", "/api/welcome", "user", welcome),
    Row("GET", "/api/models", "user", list_models),
    Row("GET", "/api/conversations", "user", list_conversations, query=("limit", "before")),
    Row("POST", "/api/conversations", "user", open_conversation),
    Row("GET", "/api/conversations/{id}", "user", show_conversation),
    Row("PATCH", "/api/conversations/{id}", "user", rename_conversation, Title),
    Row("DELETE", "/api/conversations/{id}", "user", delete_conversation),
    Row("POST", "/api/conversations/{id}/messages", "user", ask, Question),
    Row("POST", "/api/messages/{id}/regenerate", "user", regenerate, Again),
    Row("GET", "/api/generations/{id}/events", "user", follow, query=("after",)),
    Row("POST", "/api/generations/{id}/stop", "user", stop),
    Row("POST", "/api/messages/{id}/feedback", "user", react, Feedback),
    Row("POST", "/api/drafts/{id}/choose", "user", choose, Choice),
)
