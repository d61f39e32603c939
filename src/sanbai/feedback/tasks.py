"""Labeling tasks, whose they are, and leases: a task is never in more hands than its overlap, nor twice in the same.

A round gives a batch of tasks to named labelers (assignments), or leaves tasks open to whoever asks next (leases).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select

from sanbai.feedback import schema
from sanbai.feedback.accounts import Account
from sanbai.feedback.identifiers import content_id, new_id, now_ms
from sanbai.feedback.label_form import FORM_VERSION
from sanbai.feedback.store import Store
from sanbai.foundation.errors import DataError
from sanbai.foundation.seeds import python_random

FEWEST_RESPONSES, MOST_RESPONSES = 2, 9
LEASE_SECONDS = 15 * 60


@dataclass(frozen=True, slots=True)
class LabelTask:
    """K answers to one prompt, to be ranked.

    Attributes:
        messages: the prompt's turns, oldest first.
        responses: the answers; two may be the same text.
        prompt_kind: one of InstructGPT's kinds.
        origins: the model that wrote each answer, or empty; never shown to labelers.
        source: where the prompt comes from, in one word.
        round: the round that asks.
        overlap: how many people are to answer it.
        conversation_id: the person's conversation that it was taken from, or empty; it goes when that is deleted.
    """

    messages: tuple[Mapping[str, str], ...]
    responses: tuple[str, ...]
    prompt_kind: str = "other"
    origins: tuple[str, ...] = ()
    source: str = "world"
    round: int = 0
    overlap: int = 1
    conversation_id: str = ""
    form_version: int = FORM_VERSION
    kind: str = "rank"

    @property
    def id(self) -> str:
        """Determined by what is asked and by whom, so that the same round makes the same tasks again."""
        messages = [dict(message) for message in self.messages]
        return content_id(self.kind, self.round, self.source, messages, list(self.responses))


@dataclass(frozen=True, slots=True)
class Lease:
    """A task in someone's hands; `shown_order` is the shuffle in which they see the distinct answers."""

    task_id: str
    task: LabelTask
    shown_order: tuple[int, ...]


def add_tasks(
    store: Store, tasks: Sequence[LabelTask], *, assignees: Mapping[str, Sequence[Account]] | None = None
) -> int:
    """Append tasks that do not exist yet; returns how many were new.

    Args:
        store: the store.
        tasks: what is to be labeled.
        assignees: task id -> who alone is to answer it; a task that is not named is open to every labeler.

    Raises:
        DataError: too few or too many answers, or an overlap below one.
    """
    for task in tasks:
        if not FEWEST_RESPONSES <= len(task.responses) <= MOST_RESPONSES:
            raise DataError(f"{len(task.responses)} answers to rank; wanted {FEWEST_RESPONSES} to {MOST_RESPONSES}")
        if task.overlap < 1:
            raise DataError(f"an overlap of {task.overlap}; wanted at least 1")
    by_id = {task.id: task for task in tasks}
    table = schema.label_task
    with store.write() as connection:
        known = _known(connection, list(by_id))
        rows = [_task_row(task_id, task) for task_id, task in by_id.items() if task_id not in known]
        if rows:
            connection.execute(table.insert(), rows)
        given = [
            {"task_id": task_id, "account_id": account.id}
            for task_id, accounts in (assignees or {}).items()
            if task_id in by_id and task_id not in known
            for account in accounts
        ]
        if given:
            connection.execute(schema.label_assignment.insert(), given)
    return len(rows)


def assigned_tasks(store: Store, account: Account, *, limit: int) -> dict[str, LabelTask]:
    """Return tasks that were given to this account by name and that it has not answered, in the order of their ids."""
    task, given = schema.label_task, schema.label_assignment
    with store.read() as connection:
        rows = connection.execute(
            select(task)
            .join(given, given.c.task_id == task.c.id)
            .where(given.c.account_id == account.id, ~_answered_by(account.id))
            .order_by(task.c.id)
            .limit(limit)
        )
        return {row.id: task_of_row(row) for row in rows}


def lease_task(store: Store, account: Account, *, seconds: int = LEASE_SECONDS) -> Lease | None:
    """Put an open task into the account's hands, or give again the one it holds; None where nothing is open to it.

    Args:
        store: the store.
        account: who asks.
        seconds: after that the task returns to the others.
    """
    task, lease = schema.label_task, schema.label_lease
    now = now_ms()
    with store.write() as connection:
        held = connection.execute(
            select(task, lease.c.shown_order)
            .join(lease, lease.c.task_id == task.c.id)
            .where(lease.c.account_id == account.id, lease.c.expires > now, ~_answered_by(account.id))
            .order_by(lease.c.id)
            .limit(1)
        ).first()
        if held is not None:
            return Lease(held.id, task_of_row(held), tuple(held.shown_order))
        row = connection.execute(
            select(task).where(is_open_to(account.id, now)).order_by(task.c.created, task.c.id).limit(1)
        ).first()
        if row is None:
            return None
        found = task_of_row(row)
        order = shuffled_order(row.id, account, found.responses)
        connection.execute(
            lease.insert().values(
                id=new_id(),
                task_id=row.id,
                account_id=account.id,
                shown_order=list(order),
                expires=now + 1000 * seconds,
                created=now,
            )
        )
    return Lease(row.id, found, order)


def shuffled_order(task_id: str, account: Account, responses: Sequence[str]) -> tuple[int, ...]:
    """Return the positions of the distinct answers in the order that this labeler sees them."""
    positions = sorted(set(first_positions(responses)))
    python_random(0, "shown order", task_id, account.name).shuffle(positions)
    return tuple(positions)


def first_positions(responses: Sequence[str]) -> list[int]:
    """Return, for each answer, the position of the first one with the same text (ends of white space aside)."""
    first: dict[str, int] = {}
    return [first.setdefault(response.strip(), position) for position, response in enumerate(responses)]


def is_open_to(account_id: str, now: int) -> ColumnElement[bool]:
    """The condition that a task may be put into an account's hands.

    Not answered by it; meant for it or for everybody; and answers + others' live leases < overlap.
    """
    task, given, lease, ranking = schema.label_task, schema.label_assignment, schema.label_lease, schema.ranking
    num_answers = (
        select(func.count(func.distinct(ranking.c.account_id)))
        .where(ranking.c.task_id == task.c.id)
        .correlate(task)
        .scalar_subquery()
    )
    answered = exists().where(ranking.c.task_id == lease.c.task_id, ranking.c.account_id == lease.c.account_id)
    num_leases = (
        select(func.count(func.distinct(lease.c.account_id)))
        .where(lease.c.task_id == task.c.id, lease.c.expires > now, lease.c.account_id != account_id, ~answered)
        .correlate(task)
        .scalar_subquery()
    )
    is_mine = exists().where(given.c.task_id == task.c.id, given.c.account_id == account_id)
    is_anybodys = ~exists().where(given.c.task_id == task.c.id)
    lives = ~exists().where(schema.conversation_deleted.c.conversation_id == task.c.conversation_id)
    return and_(
        lives,
        ~_answered_by(account_id),
        or_(is_mine, and_(is_anybodys, num_answers + num_leases < task.c.overlap)),
    )


def task_of_row(row: Any) -> LabelTask:
    """Return the task that a row of `label_task` holds."""
    return LabelTask(
        messages=tuple(row.messages),
        responses=tuple(row.responses),
        prompt_kind=row.prompt_kind,
        origins=tuple(row.origins),
        source=row.source,
        round=row.round,
        overlap=row.overlap,
        conversation_id=row.conversation_id or "",
        form_version=row.form_version,
        kind=row.kind,
    )


def _task_row(task_id: str, task: LabelTask) -> dict[str, Any]:
    return {
        "id": task_id,
        "kind": task.kind,
        "prompt_kind": task.prompt_kind,
        "messages": [dict(message) for message in task.messages],
        "responses": list(task.responses),
        "origins": list(task.origins),
        "source": task.source,
        "conversation_id": task.conversation_id or None,
        "round": task.round,
        "form_version": task.form_version,
        "overlap": task.overlap,
        "created": now_ms(),
    }


def _known(connection: Connection, ids: list[str]) -> set[str]:
    table = schema.label_task
    found: set[str] = set()
    for start in range(0, len(ids), 1000):
        found |= set(connection.execute(select(table.c.id).where(table.c.id.in_(ids[start : start + 1000]))).scalars())
    return found


def _answered_by(account_id: str) -> ColumnElement[bool]:
    ranking = schema.ranking
    return exists().where(ranking.c.task_id == schema.label_task.c.id, ranking.c.account_id == account_id)
