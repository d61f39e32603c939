from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select

from sanbai.feedback import schema
from sanbai.feedback.accounts import Account
from sanbai.feedback.labels import (
    Answer,
    Rating,
    add_answers,
    agreements,
    complete_answer,
    newest_rankings,
    progress,
    strict_order,
)
from sanbai.feedback.store import Store
from sanbai.feedback.tasks import LabelTask, add_tasks, lease_task
from sanbai.foundation.errors import DataError, UnknownNameError

TASK = LabelTask(({"role": "user", "content": "Who bakes?"},), ("Anna", "Bert", "Anna", "nobody"))


@pytest.fixture
def given_to_both(store: Store, anna: Account, bert: Account) -> str:
    add_tasks(store, [TASK], assignees={TASK.id: [anna, bert]})
    return TASK.id


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (Answer(TASK.id, ((0, 1), (1, 2, 3))), "answer 1 is named twice"),
        (Answer(TASK.id, ((0,), (1, 2))), "answer 3 is missing"),
        (Answer(TASK.id, ((0,), (1, 2), (4,))), "found answer 4, wanted 0 to 3"),
        (Answer(TASK.id, ((0,), (), (1, 2, 3))), r"found \[\]"),
        (Answer(TASK.id, ()), "an empty list"),
        (Answer(TASK.id, ((0, 1, 2, 3),), not_rankable=True), "both ranked and not rankable"),
        (Answer(TASK.id, ((0, 1, 2, 3),), (Rating(0, 8),)), "found likert 8, wanted 1 to 7"),
        (Answer(TASK.id, ((0, 1, 2, 3),), (Rating(4, 1),)), "found answer 4, wanted 0 to 3"),
        (Answer(TASK.id, ((0, 1, 2, 3),), (Rating(1, 1), Rating(1, 2))), "answer 1 is rated twice"),
        (Answer(TASK.id, ((0, 1, 2, 3),), (Rating(1, 1, ("rude",)),)), "unknown flag 'rude'"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_in_one_line_and_leaves_nothing(
    store: Store, anna: Account, given_to_both: str, answer: Answer, complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint) as raised:
        add_answers(store, anna, [answer])
    assert "\n" not in str(raised.value)
    assert progress(store, anna).mine == 0


def test_a_bad_answer_undoes_the_good_ones_of_its_request(store: Store, anna: Account, given_to_both: str) -> None:
    other = LabelTask(TASK.messages, ("x", "y"))
    add_tasks(store, [other], assignees={other.id: [anna]})
    with pytest.raises(DataError):
        add_answers(store, anna, [Answer(other.id, ((0,), (1,))), Answer(TASK.id, ((0, 0),))])
    assert progress(store, anna).mine == 0


def test_equal_texts_share_a_bucket_and_a_rating_when_only_the_first_is_named() -> None:
    buckets, ratings = complete_answer(
        TASK, Answer(TASK.id, ((3,), (0,), (1,)), (Rating(0, 6, ("opinion",), "good"), Rating(3, 2)))
    )
    assert buckets == [[3], [0, 2], [1]]
    assert ratings == [
        Rating(0, 6, ("opinion",), "good"),
        Rating(2, 6, ("opinion",), "good"),
        Rating(3, 2),
    ]


def test_a_program_may_rank_every_position_itself() -> None:
    buckets, _ = complete_answer(TASK, Answer(TASK.id, ((2,), (3, 1), (0,))))
    assert buckets == [[2], [1, 3], [0]]


def test_the_same_answer_twice_is_one_row_and_another_one_supersedes(
    store: Store, anna: Account, given_to_both: str
) -> None:
    first = Answer(TASK.id, ((0, 2), (1,), (3,)))
    assert add_answers(store, anna, [first]) == add_answers(store, anna, [first])
    add_answers(store, anna, [Answer(TASK.id, ((3,), (1,), (0, 2)))])
    with store.read() as connection:
        rows = connection.execute(select(schema.ranking).order_by(schema.ranking.c.id)).all()
        newest = newest_rankings(connection, schema.ranking.c.account_id == anna.id)
    assert len(rows) == 2
    assert rows[1].supersedes_id == rows[0].id
    assert [row.buckets for row in newest] == [[[3], [1], [0, 2]]]
    assert progress(store, anna).mine == 1


def test_an_idempotency_key_stands_for_one_task(store: Store, anna: Account, given_to_both: str) -> None:
    other = LabelTask(TASK.messages, ("x", "y"))
    add_tasks(store, [other], assignees={other.id: [anna]})
    add_answers(store, anna, [Answer(TASK.id, ((0, 1, 2, 3),), idempotency_key="k")])
    with pytest.raises(DataError, match="used before for another task"):
        add_answers(store, anna, [Answer(other.id, ((0, 1),), idempotency_key="k")])


def test_nobody_answers_a_task_that_is_not_theirs(store: Store, anna: Account, bert: Account) -> None:
    add_tasks(store, [TASK], assignees={TASK.id: [anna]})
    for task_id in (TASK.id, "no-such-task"):
        with pytest.raises(UnknownNameError, match="no such task among yours"):
            add_answers(store, bert, [Answer(task_id, ((0, 1, 2, 3),))])


def test_ratings_without_a_ranking_are_kept(store: Store, anna: Account, given_to_both: str) -> None:
    add_answers(store, anna, [Answer(TASK.id, (), (Rating(1, 1, ("fails_task",)),), not_rankable=True)])
    with store.read() as connection:
        assert connection.execute(select(schema.rating.c.flags)).scalars().all() == [["fails_task"]]


def test_progress_counts_what_is_open_to_the_one_who_asks(store: Store, anna: Account, bert: Account) -> None:
    add_tasks(store, [LabelTask(TASK.messages, ("x", str(number))) for number in range(3)])
    lease = lease_task(store, anna)
    assert lease is not None
    assert (progress(store, anna).open, progress(store, bert).open) == (3, 2)
    add_answers(store, anna, [Answer(lease.task_id, ((0,), (1,)))])
    assert (progress(store, anna).open, progress(store, bert).open) == (2, 2)
    assert (progress(store, anna).mine, progress(store, bert).mine, progress(store, bert).answered) == (1, 0, 1)


def test_agreement_counts_pairs_that_both_put_strictly_in_order(
    store: Store, anna: Account, bert: Account, given_to_both: str
) -> None:
    add_answers(store, anna, [Answer(TASK.id, ((0,), (1,), (2,), (3,)))])
    add_answers(store, bert, [Answer(TASK.id, ((0,), (2,), (1, 3)))])
    # By hand: bert orders 01 02 03 21 23 strictly; anna orders all six by number; they differ on 1 against 2 alone.
    found = agreements(store, anna)
    assert len(found) == 5
    assert sum(agree for _, agree in found) == 4
    assert agreements(store, bert) == agreements(store, bert)
    assert sum(agree for _, agree in agreements(store, bert)) == 4


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_strict_order_is_the_order_of_the_buckets(levels: list[int]) -> None:
    buckets = [[place for place in range(5) if levels[place] == level] for level in range(3)]
    expected = {(a, b) for a in range(5) for b in range(5) if levels[a] < levels[b]}
    assert strict_order([bucket for bucket in buckets if bucket]) == expected


@pytest.mark.parametrize("size", [10, 200])
def test_a_batch_costs_the_same_few_statements_whatever_its_size(store: Store, anna: Account, size: int) -> None:
    batch = [LabelTask(({"role": "user", "content": str(number)},), tuple("abcdef")) for number in range(size)]
    add_tasks(store, batch, assignees={task.id: [anna] for task in batch})
    ratings = tuple(Rating(place, 1 + place) for place in range(6))
    answers = [Answer(task.id, ((0,), (1, 2), (3, 4, 5)), ratings) for task in batch]
    statements: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    commits: list[object] = []
    event.listen(store.engine, "commit", commits.append)
    add_answers(store, anna, answers)
    assert len(commits) == 1
    assert len([one for one in statements if not one.startswith("BEGIN")]) <= 8
    with store.read() as connection:
        assert connection.execute(select(func.count()).select_from(schema.ranking)).scalar() == size
        assert connection.execute(select(func.count()).select_from(schema.rating)).scalar() == 6 * size
