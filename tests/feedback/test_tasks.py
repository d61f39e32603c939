from __future__ import annotations

import random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from sanbai.feedback import tasks
from sanbai.feedback.accounts import Account, add_account
from sanbai.feedback.labels import Answer, add_answers
from sanbai.feedback.store import Store
from sanbai.feedback.tasks import LabelTask, add_tasks, assigned_tasks, first_positions, lease_task
from sanbai.foundation.errors import DataError


def ask(number: int, *, overlap: int = 1, responses: tuple[str, ...] = ("yes", "no", "perhaps")) -> LabelTask:
    return LabelTask(({"role": "user", "content": f"question {number}"},), responses, overlap=overlap)


def in_order(task_id: str, num_responses: int = 3) -> Answer:
    return Answer(task_id, tuple((place,) for place in range(num_responses)))


@pytest.mark.parametrize("overlap", [1, 3])
def test_twenty_labelers_at_once_give_every_task_exactly_its_overlap_of_distinct_people(
    store: Store, overlap: int
) -> None:
    num_tasks, num_labelers = 30, 20
    add_tasks(store, [ask(number, overlap=overlap) for number in range(num_tasks)])
    people = [add_account(store, f"labeler{number}", "labeler") for number in range(num_labelers)]
    taken: dict[str, list[str]] = defaultdict(list)

    def work(person: Account) -> None:
        while (lease := lease_task(store, person)) is not None:
            assert lease_task(store, person) == lease  # asking again gives the same task
            add_answers(store, person, [in_order(lease.task_id)])
            taken[lease.task_id].append(person.id)

    with ThreadPoolExecutor(num_labelers) as pool:
        list(pool.map(work, people))
    assert len(taken) == num_tasks
    assert all(len(who) == len(set(who)) == overlap for who in taken.values())


def test_a_lease_that_runs_out_returns_the_task_and_a_late_answer_is_refused(
    store: Store, anna: Account, bert: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_tasks(store, [ask(1)])
    held = lease_task(store, anna, seconds=60)
    assert held is not None
    assert lease_task(store, bert) is None
    later = tasks.now_ms() + 61_000
    monkeypatch.setattr(tasks, "now_ms", lambda: later)
    monkeypatch.setattr("sanbai.feedback.labels.now_ms", lambda: later)
    again = lease_task(store, bert, seconds=60)
    assert again is not None
    assert again.task_id == held.task_id
    with pytest.raises(DataError, match="went to others"):
        add_answers(store, anna, [in_order(held.task_id)])
    add_answers(store, bert, [in_order(held.task_id)])


def test_a_late_answer_is_welcome_while_nobody_else_took_the_task(
    store: Store, anna: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_tasks(store, [ask(1)])
    held = lease_task(store, anna, seconds=60)
    assert held is not None
    later = tasks.now_ms() + 61_000
    monkeypatch.setattr("sanbai.feedback.labels.now_ms", lambda: later)
    assert len(add_answers(store, anna, [in_order(held.task_id)])) == 1


def test_assigned_tasks_go_to_their_assignees_alone(store: Store, anna: Account, bert: Account) -> None:
    batch = [ask(number, overlap=2) for number in range(4)]
    assignees = {batch[0].id: [anna], batch[1].id: [anna, bert], batch[2].id: [bert]}
    assert add_tasks(store, batch, assignees=assignees) == 4
    assert set(assigned_tasks(store, anna, limit=10)) == {batch[0].id, batch[1].id}
    add_answers(store, anna, [in_order(batch[0].id)])
    assert set(assigned_tasks(store, anna, limit=10)) == {batch[1].id}
    add_answers(store, anna, [in_order(batch[1].id)])
    leased = lease_task(store, anna)
    assert leased is not None
    assert leased.task_id == batch[3].id  # the open one; bert's is not offered


def test_making_the_same_tasks_again_adds_none(store: Store, anna: Account) -> None:
    batch = [ask(number) for number in range(3)]
    assert add_tasks(store, batch, assignees={batch[0].id: [anna]}) == 3
    assert add_tasks(store, batch, assignees={batch[0].id: [anna]}) == 0


def test_identical_answers_are_shown_once_and_in_a_stored_shuffle(store: Store, anna: Account) -> None:
    responses = ("a", "b", "a ", "c", "b", "d")
    assert first_positions(responses) == [0, 1, 0, 3, 1, 5]
    add_tasks(store, [ask(1, responses=responses)])
    lease = lease_task(store, anna)
    assert lease is not None
    assert sorted(lease.shown_order) == [0, 1, 3, 5]
    assert lease_task(store, anna) == lease


def test_the_shuffle_hides_which_answer_came_first(store: Store) -> None:
    person = Account("x", "anna", "labeler", "person")
    firsts = [tasks.shuffled_order(f"task{number}", person, ("a", "b", "c", "d"))[0] for number in range(400)]
    assert all(70 <= firsts.count(place) <= 130 for place in range(4))


@pytest.mark.parametrize("num_responses", [1, 10])
def test_only_two_to_nine_answers_can_be_ranked(store: Store, num_responses: int) -> None:
    with pytest.raises(DataError, match="wanted 2 to 9"):
        add_tasks(store, [ask(1, responses=tuple(map(str, range(num_responses))))])


def test_random_comings_and_goings_never_put_a_task_in_too_many_hands(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow simulation with a clock of its own: leases run out, people come back late or never."""
    chance, overlap = random.Random(5), 2
    add_tasks(store, [ask(number, overlap=overlap) for number in range(8)])
    people = [add_account(store, f"labeler{number}", "labeler") for number in range(6)]
    clock = [tasks.now_ms()]
    monkeypatch.setattr(tasks, "now_ms", lambda: clock[0])
    monkeypatch.setattr("sanbai.feedback.labels.now_ms", lambda: clock[0])
    hands: dict[str, set[str]] = defaultdict(set)
    held: dict[str, str] = {}
    for _ in range(300):
        person = chance.choice(people)
        clock[0] += chance.randrange(30_000)
        if person.id in held and chance.random() < 0.6:
            task_id = held.pop(person.id)
            try:
                add_answers(store, person, [in_order(task_id)])
                hands[task_id].add(person.id)
            except DataError:
                assert len(hands[task_id] - {person.id}) <= overlap
        elif (lease := lease_task(store, person, seconds=60)) is not None:
            held[person.id] = lease.task_id
    assert len(hands) == 8
    assert all(len(who) == overlap for who in hands.values())
