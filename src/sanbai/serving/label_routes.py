"""The labelers' routes: for people one leased task at a time, for programs batches of those given to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from sanbai.evaluation.statistics import rate_or_mean
from sanbai.feedback import demonstrations, labels, tasks
from sanbai.feedback.label_form import FLAGS, HIGHEST_LIKERT, LOWEST_LIKERT
from sanbai.feedback.labels import Answer, Rating
from sanbai.serving.markdown import render_markdown
from sanbai.serving.problems import Problem
from sanbai.serving.routes import Body, Call, PlainText, Row

MOST_ANSWERS = 1000
#: Redraws behind the interval of a labeler's agreement; it is shown, not tested.
AGREEMENT_DRAWS = 200


class RatingBody(Body):
    """A rating of one answer; without `position` the ratings follow the order in which the answers were given out."""

    position: int | None = Field(default=None, ge=0, lt=tasks.MOST_RESPONSES)
    likert: int | None = Field(default=None, ge=LOWEST_LIKERT, le=HIGHEST_LIKERT)
    flags: list[PlainText] = Field(default=[], max_length=len(FLAGS))
    note: PlainText = Field(default="", max_length=labels.LONGEST_NOTE)


class AnswerBody(Body):
    """A ranking with ties, and ratings beside it."""

    buckets: list[list[int]] = Field(default=[], max_length=tasks.MOST_RESPONSES)
    ratings: list[RatingBody] = Field(default=[], max_length=tasks.MOST_RESPONSES)
    not_rankable: bool = False
    milliseconds: int = Field(default=0, ge=0, le=10**12)
    idempotency_key: PlainText = Field(default="", max_length=80)


class NamedAnswerBody(AnswerBody):
    """An answer that says which task it is to."""

    task_id: PlainText = Field(min_length=1, max_length=64)


class AnswersBody(Body):
    """A batch: all are kept or none."""

    answers: list[NamedAnswerBody] = Field(min_length=1, max_length=MOST_ANSWERS)


class TurnBody(Body):
    """One turn of a demonstration."""

    role: PlainText = Field(pattern="^(system|user|assistant|tool)$")
    content: PlainText = Field(max_length=100_000)


class DemonstrationBody(Body):
    """A conversation whose last answer the labeler wrote."""

    messages: list[TurnBody] = Field(min_length=2, max_length=200)
    idempotency_key: PlainText = Field(default="", max_length=80)


def list_tasks(call: Call) -> dict[str, Any]:
    """Return tasks given to this account by name; the position of an answer is its place in the list."""
    limit = call.number("limit", 50, low=1, high=MOST_ANSWERS)
    found = tasks.assigned_tasks(call.house.store, call.account, limit=limit)
    return {
        "tasks": [
            {
                "id": task_id,
                "kind": task.kind,
                "messages": task.messages,
                "responses": task.responses,
                "form_version": task.form_version,
            }
            for task_id, task in found.items()
        ]
    }


def next_task(call: Call) -> dict[str, Any]:
    """Lease the account one task, or say why there is none."""
    lease = tasks.lease_task(call.house.store, call.account)
    if lease is None:
        return {"task": None, "reason": "nothing is open to you now; a new round makes new tasks"}
    task = {
        "id": lease.task_id,
        "kind": lease.task.kind,
        "form_version": lease.task.form_version,
        "messages": [
            {"role": turn["role"], "content": turn["content"], "html": render_markdown(turn["content"])}
            for turn in lease.task.messages
        ],
        "responses": [
            {
                "position": position,
                "content": lease.task.responses[position],
                "html": render_markdown(lease.task.responses[position]),
            }
            for position in lease.shown_order
        ],
        "flags": [{"name": flag.name, "text": flag.text} for flag in FLAGS],
    }
    return {"task": task, "reason": None}


def answer(call: Call) -> dict[str, Any]:
    """Keep one answer; the response is sent once it is on disk."""
    task_id = call.part("id")
    (row,) = _keep(call, {task_id: call.body(AnswerBody)})
    return {"id": row}


def answer_many(call: Call) -> dict[str, Any]:
    """Keep a batch of answers in one transaction."""
    batch = call.body(AnswersBody).answers
    by_task: dict[str, AnswerBody] = {one.task_id: one for one in batch}
    if len(by_task) < len(batch):
        raise Problem(400, "answers: two answers to one task in one request", "invalid_value", param="answers")
    return {"accepted": len(_keep(call, by_task))}


def progress(call: Call) -> dict[str, Any]:
    """Say how far labeling is, and how often this labeler agrees with the others."""
    now = labels.progress(call.house.store, call.account)
    pairs = labels.agreements(call.house.store, call.account)
    agreement = None
    if pairs:
        values, clusters = [float(agree) for _, agree in pairs], [task_id for task_id, _ in pairs]
        agreement = rate_or_mean(values, clusters, seed=0, draws=AGREEMENT_DRAWS).to_json()
    return {"answered": now.answered, "open": now.open, "mine": now.mine, "agreement": agreement}


def demonstrate(call: Call) -> dict[str, Any]:
    """Keep an answer that the labeler wrote."""
    said = call.body(DemonstrationBody)
    turns = [{"role": turn.role, "content": turn.content} for turn in said.messages]
    row = demonstrations.add_demonstration(
        call.house.store,
        call.account,
        turns,
        source=call.account.source,
        idempotency_key=said.idempotency_key,
    )
    return {"id": row}


def _keep(call: Call, bodies: dict[str, AnswerBody]) -> list[str]:
    orders = labels.shown_orders(call.house.store, call.account, list(bodies))
    answers = [
        Answer(
            task_id,
            tuple(tuple(bucket) for bucket in body.buckets),
            _ratings(body.ratings, orders.get(task_id)),
            body.not_rankable,
            body.milliseconds,
            idempotency_key=body.idempotency_key,
        )
        for task_id, body in bodies.items()
    ]
    return labels.add_answers(call.house.store, call.account, answers)


def _ratings(bodies: Sequence[RatingBody], order: Sequence[int] | None) -> tuple[Rating, ...]:
    """Return ratings by position; those that name none follow the order shown, or the task's own."""
    ratings = []
    for place, body in enumerate(bodies):
        if body.likert is None and not body.flags and not body.note:
            continue
        shown = order[place] if order and place < len(order) else place
        position = shown if body.position is None else body.position
        ratings.append(Rating(position, body.likert or 0, tuple(body.flags), body.note))
    return tuple(ratings)


ROWS = (
    Row("GET", "/api/label/tasks", "labeler", list_tasks, query=("limit",)),
    Row("GET", "/api/label/next", "labeler", next_task),
    Row("POST", "/api/label/tasks/{id}/answer", "labeler", answer, AnswerBody),
    Row("POST", "/api/label/answers", "labeler", answer_many, AnswersBody),
    Row("GET", "/api/label/progress", "labeler", progress),
    Row("POST", "/api/label/demonstrations", "labeler", demonstrate, DemonstrationBody),
)
