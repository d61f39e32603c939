"""Labels: a labeler's ranking with ties and, beside it, ratings. Two facts; neither is made of the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from sqlalchemy import Connection, and_, func, select

from sanbai.data.rankings import read_buckets
from sanbai.feedback import schema
from sanbai.feedback.accounts import Account
from sanbai.feedback.identifiers import content_id, new_id, now_ms
from sanbai.feedback.label_form import FLAG_NAMES, HIGHEST_LIKERT, LOWEST_LIKERT
from sanbai.feedback.store import Store
from sanbai.feedback.tasks import LabelTask, first_positions, is_open_to, task_of_row
from sanbai.foundation.errors import DataError, UnknownNameError

LONGEST_NOTE = 2000
#: Agreement is counted over the newest of a labeler's tasks only, so that asking stays cheap.
AGREEMENT_TASKS = 200


@dataclass(frozen=True, slots=True)
class Rating:
    """What a labeler says of one answer on its own; a likert of 0 means not given."""

    position: int
    likert: int = 0
    flags: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A labeler's answer to one task.

    Attributes:
        task_id: the task.
        buckets: positions in the task's responses, best bucket first, ties in one bucket. Either every position, or
            only the first of each group of equal texts; the others then join it.
        ratings: any of the positions, each once.
        not_rankable: the labeler could not rank them; no buckets then.
        milliseconds: how long it took, as the labeler's program measured it.
        idempotency_key: the same request twice is one row.
    """

    task_id: str
    buckets: tuple[tuple[int, ...], ...]
    ratings: tuple[Rating, ...] = ()
    not_rankable: bool = False
    milliseconds: int = 0
    idempotency_key: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far labeling is.

    Attributes:
        answered: answers of all labelers to all tasks; a change of mind counts once.
        open: tasks that this labeler could be given now.
        mine: this labeler's answers.
    """

    answered: int
    open: int
    mine: int


def add_answers(store: Store, account: Account, answers: Sequence[Answer]) -> list[str]:
    """Append answers, all or none, in one transaction; returns the ids of their rows.

    A second answer to a task is a change of mind and supersedes the first; the very same one again is no new row.

    Raises:
        UnknownNameError: a task that does not exist or was not given to this account.
        DataError: an answer that does not fit its task; the first one, in one line.
    """
    by_task = {answer.task_id: answer for answer in answers}
    if len(by_task) != len(answers):
        raise DataError("two answers to one task in one request; send the last one")
    with store.write() as connection:
        tasks = _tasks(connection, list(by_task))
        mine = _answered(connection, account, list(by_task))
        certain = mine.keys() | _given(connection, account, list(by_task))
        orders = _shown_orders(connection, account, list(by_task))
        completed = _complete(tasks, answers, certain | orders.keys())
        known = _known_keys(connection, account, [one.key for one in completed])
        rankings: list[dict[str, Any]] = []
        ratings: list[dict[str, Any]] = []
        ids: list[str] = []
        for answer in completed:
            if answer.key in known:
                row_id, task_id = known[answer.key]
                if task_id != answer.task_id:
                    raise DataError(f"idempotency key {answer.key}: used before for another task; make a new one")
                ids.append(row_id)
                continue
            if answer.task_id not in certain and not _may_answer(connection, account, answer.task_id):
                raise DataError(f"{answer.task_id}: went to others when its time ran out; ask for the next task")
            known[answer.key] = (row_id := new_id(), answer.task_id)
            ids.append(row_id)
            rankings.append(
                {
                    "id": row_id,
                    "task_id": answer.task_id,
                    "account_id": account.id,
                    "buckets": answer.buckets,
                    "not_rankable": answer.said.not_rankable,
                    "shown_order": orders.get(answer.task_id) or list(range(len(answer.task.responses))),
                    "milliseconds": answer.said.milliseconds,
                    "form_version": answer.task.form_version,
                    "idempotency_key": answer.key,
                    "supersedes_id": mine.get(answer.task_id),
                    "created": now_ms(),
                }
            )
            ratings += [{"ranking_id": row_id, **fields} for fields in answer.ratings]
        if rankings:
            connection.execute(schema.ranking.insert(), rankings)
        if ratings:
            connection.execute(schema.rating.insert(), ratings)
    return ids


@dataclass(frozen=True, slots=True)
class _Completed:
    """An answer that fits its task, as its rows will hold it."""

    said: Answer
    task: LabelTask
    buckets: list[list[int]]
    ratings: list[Mapping[str, Any]]

    @property
    def task_id(self) -> str:
        return self.said.task_id

    @property
    def key(self) -> str:
        """What makes the same request the same: the key it carries, else its whole content."""
        return self.said.idempotency_key or content_id(self.task_id, self.buckets, self.ratings, self.said.not_rankable)


def _complete(tasks: Mapping[str, LabelTask], answers: Sequence[Answer], mine: Collection[str]) -> list[_Completed]:
    completed = []
    for answer in answers:
        task = tasks.get(answer.task_id)
        if task is None or answer.task_id not in mine:
            raise UnknownNameError(f"{answer.task_id}: no such task among yours")
        buckets, ratings = complete_answer(task, answer)
        completed.append(_Completed(answer, task, buckets, _plain(ratings)))
    return completed


def complete_answer(task: LabelTask, answer: Answer) -> tuple[list[list[int]], list[Rating]]:
    """Return an answer's buckets and ratings over every position, equal texts sharing what was said of the first.

    Raises:
        DataError: an answer named twice, missing or out of range; a rating off the scale, given twice, or with an
            unknown flag.
    """
    where = f"task {answer.task_id}"
    count = len(task.responses)
    firsts = first_positions(task.responses)
    twins = {first: [place for place, its in enumerate(firsts) if its == first] for first in firsts}
    named = [position for bucket in answer.buckets for position in bucket]
    buckets = [list(bucket) for bucket in answer.buckets]
    only_firsts = sorted(named) == sorted(twins) and len(twins) < count
    if only_firsts:
        buckets = [[twin for position in bucket for twin in twins[position]] for bucket in buckets]
    if answer.not_rankable:
        if buckets:
            raise DataError(f"{where}: both ranked and not rankable; wanted one of the two")
    else:
        read_buckets({"buckets": buckets}, count, where=where)
    said: dict[int, Rating] = {}
    for rating in answer.ratings:
        check_rating(rating, count, where)
        if rating.position in said:
            raise DataError(f"{where}: ratings: answer {rating.position} is rated twice, wanted at most once")
        said[rating.position] = rating
    for position, first in enumerate(firsts):
        if position not in said and first in said:
            said[position] = Rating(position, said[first].likert, said[first].flags, said[first].note)
    return [sorted(bucket) for bucket in buckets], [said[position] for position in sorted(said)]


def check_rating(rating: Rating, num_responses: int, where: str) -> None:
    """Make sure that a rating is on the scale.

    Raises:
        DataError: it is not.
    """
    if not 0 <= rating.position < num_responses:
        raise DataError(f"{where}: ratings: found answer {rating.position}, wanted 0 to {num_responses - 1}")
    if rating.likert and not LOWEST_LIKERT <= rating.likert <= HIGHEST_LIKERT:
        raise DataError(
            f"{where}: ratings: found likert {rating.likert}, wanted {LOWEST_LIKERT} to {HIGHEST_LIKERT}, or none"
        )
    if unknown := sorted(set(rating.flags) - FLAG_NAMES):
        raise DataError(
            f"{where}: ratings: unknown flag {unknown[0]!r}; wanted some of {', '.join(sorted(FLAG_NAMES))}"
        )
    if len(rating.note) > LONGEST_NOTE:
        raise DataError(f"{where}: ratings: a note of {len(rating.note)} characters; wanted at most {LONGEST_NOTE}")


def progress(store: Store, account: Account) -> Progress:
    """Return how far labeling is, as this labeler sees it."""
    task, ranking = schema.label_task, schema.ranking
    answers = select(ranking.c.task_id, ranking.c.account_id).distinct().subquery()
    with store.read() as connection:
        answered = connection.execute(select(func.count()).select_from(answers)).scalar_one()
        mine = connection.execute(
            select(func.count()).select_from(answers).where(answers.c.account_id == account.id)
        ).scalar_one()
        open_ = connection.execute(
            select(func.count()).select_from(task).where(is_open_to(account.id, now_ms()))
        ).scalar_one()
    return Progress(answered, open_, mine)


def agreements(store: Store, account: Account) -> list[tuple[str, bool]]:
    """Compare the account's newest rankings with others' of the same tasks.

    Returns:
        (task id, whether the two agree) for every pair of answers that both labelers put strictly in order.
    """
    table = schema.ranking
    with store.read() as connection:
        mine = newest_rankings(connection, table.c.account_id == account.id)[-AGREEMENT_TASKS:]
        ids = [row.task_id for row in mine]
        others = newest_rankings(connection, and_(table.c.account_id != account.id, table.c.task_id.in_(ids)))
    order_of = {row.task_id: strict_order(row.buckets) for row in mine}
    return [
        (row.task_id, pair in order_of[row.task_id])
        for row in others
        for pair in sorted(strict_order(row.buckets))
        if pair in order_of[row.task_id] or pair[::-1] in order_of[row.task_id]
    ]


def strict_order(buckets: Sequence[Sequence[int]]) -> set[tuple[int, int]]:
    """Return every (better, worse) that buckets put strictly in order."""
    return {(a, b) for above, below in combinations(buckets, 2) for a in above for b in below}


def newest_rankings(connection: Connection, condition: Any) -> list[Any]:
    """Return each labeler's newest ranking of each task, rows of `ranking`, oldest first; unrankable ones included."""
    table = schema.ranking
    newest = select(func.max(table.c.id)).where(condition).group_by(table.c.task_id, table.c.account_id)
    return list(connection.execute(select(table).where(table.c.id.in_(newest)).order_by(table.c.id)))


def _tasks(connection: Connection, ids: list[str]) -> dict[str, LabelTask]:
    task = schema.label_task
    return {row.id: task_of_row(row) for row in connection.execute(select(task).where(task.c.id.in_(ids)))}


def _answered(connection: Connection, account: Account, ids: list[str]) -> dict[str, str]:
    """Return task id -> the account's newest answer, where it has one."""
    table = schema.ranking
    rows = connection.execute(
        select(table.c.task_id, func.max(table.c.id).label("id"))
        .where(table.c.account_id == account.id, table.c.task_id.in_(ids))
        .group_by(table.c.task_id)
    )
    return {row.task_id: row.id for row in rows}


def _given(connection: Connection, account: Account, ids: list[str]) -> set[str]:
    given = schema.label_assignment
    return set(
        connection.execute(
            select(given.c.task_id).where(given.c.account_id == account.id, given.c.task_id.in_(ids))
        ).scalars()
    )


def shown_orders(store: Store, account: Account, task_ids: Sequence[str]) -> dict[str, list[int]]:
    """Return task id -> the order in which the account was shown its answers, where it has leased the task."""
    with store.read() as connection:
        return _shown_orders(connection, account, list(task_ids))


def _shown_orders(connection: Connection, account: Account, ids: list[str]) -> dict[str, list[int]]:
    lease = schema.label_lease
    rows = connection.execute(
        select(lease.c.task_id, lease.c.shown_order)
        .where(lease.c.account_id == account.id, lease.c.task_id.in_(ids))
        .order_by(lease.c.id)
    )
    return {row.task_id: row.shown_order for row in rows}


def _known_keys(connection: Connection, account: Account, keys: list[str]) -> dict[str, tuple[str, str]]:
    """Return idempotency key -> (row, task) of the account's earlier answers with these keys."""
    table = schema.ranking
    rows = connection.execute(
        select(table.c.idempotency_key, table.c.id, table.c.task_id).where(
            table.c.account_id == account.id, table.c.idempotency_key.in_(keys)
        )
    )
    return {row.idempotency_key: (row.id, row.task_id) for row in rows}


def _may_answer(connection: Connection, account: Account, task_id: str) -> bool:
    """Whether a leased task still waits for this account: its lease lives, or nobody else has taken the place."""
    task = schema.label_task
    found = connection.execute(select(task.c.id).where(task.c.id == task_id, is_open_to(account.id, now_ms())))
    return found.first() is not None


def _plain(ratings: Sequence[Rating]) -> list[Mapping[str, Any]]:
    return [
        {"position": one.position, "likert": one.likert, "flags": sorted(one.flags), "note": one.note}
        for one in ratings
    ]
