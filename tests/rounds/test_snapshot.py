"""The snapshot's artifact: named by its words alone, and the way back to its rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanbai.feedback.accounts import Account, add_account
from sanbai.feedback.consent import set_consent
from sanbai.feedback.labels import Answer, Rating, add_answers
from sanbai.feedback.snapshots import snapshot_items
from sanbai.feedback.store import Store
from sanbai.feedback.tasks import LabelTask, add_tasks
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.stage import Job
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.rounds.snapshot import freeze_snapshot, read_snapshot_rankings

TASKS = [
    LabelTask(({"role": "user", "content": f"Who is {number}?"},), ("one", "two", "three"), prompt_kind="chat", round=1)
    for number in range(3)
]


def open_job(folder: Path) -> tuple[Job, Store]:
    workspace = Workspace(folder)
    workspace.create()
    store = Store(workspace.database_url)
    store.create()
    return Job(workspace, SilentProgress(), StopSignal()), store


def labeler(store: Store, name: str, *, consents: bool = True, simulated: bool = False) -> Account:
    account = add_account(store, name, "labeler", source="simulated" if simulated else "person")
    set_consent(store, account, granted=consents)
    return account


def freeze(job: Job, store: Store, number: int = 1) -> Artifact:
    return freeze_snapshot(job, store, seed=1, round=number)


def rank_all(store: Store, account: Account, tasks: list[LabelTask]) -> None:
    ratings = tuple(Rating(place, likert=place + 1) for place in range(3))
    add_answers(store, account, [Answer(task.id, ((2,), (0, 1)), ratings) for task in tasks])


def test_the_same_words_in_another_order_give_the_same_snapshot(tmp_path: Path) -> None:
    made = []
    for name, tasks in (("a", TASKS), ("b", TASKS[::-1])):
        job, store = open_job(tmp_path / name)
        people = [labeler(store, "ada"), labeler(store, "simulated", simulated=True)]
        for task in tasks:
            add_tasks(store, [task], assignees={task.id: people})
        for account in people if name == "a" else people[::-1]:
            rank_all(store, account, tasks)
        made.append(freeze(job, store))
    first, second = made
    assert first.name == second.name
    for file in first.manifest["files"]:
        assert first.file(file).read_bytes() == second.file(file).read_bytes()
    assert first.metrics["rankings"] == 6
    assert first.metrics["rankings_person"] == first.metrics["rankings_simulated"] == 3


def test_its_rankings_come_back_as_they_were_given(tmp_path: Path) -> None:
    job, store = open_job(tmp_path)
    ada = labeler(store, "ada")
    add_tasks(store, TASKS, assignees={task.id: [ada] for task in TASKS})
    rank_all(store, ada, TASKS)
    rankings = read_snapshot_rankings(freeze(job, store))
    assert {ranking.buckets for ranking in rankings} == {((2,), (0, 1))}
    assert {tuple(rating.likert for rating in ranking.ratings) for ranking in rankings} == {(1, 2, 3)}
    assert {ranking.round for ranking in rankings} == {1}


@pytest.mark.parametrize(("consents", "number"), [(False, 1), (True, 0)])
def test_who_has_not_agreed_and_what_comes_later_stay_out(tmp_path: Path, consents: bool, number: int) -> None:
    job, store = open_job(tmp_path)
    ada = labeler(store, "ada", consents=consents)
    add_tasks(store, TASKS, assignees={task.id: [ada] for task in TASKS})
    rank_all(store, ada, TASKS)
    snapshot = freeze(job, store, number)
    assert read_snapshot_rankings(snapshot) == []
    assert snapshot_items(store, snapshot.name) == []


def test_the_rows_that_went_in_are_remembered_once(tmp_path: Path) -> None:
    job, store = open_job(tmp_path)
    ada = labeler(store, "ada")
    add_tasks(store, TASKS, assignees={task.id: [ada] for task in TASKS})
    rank_all(store, ada, TASKS)
    snapshot = freeze(job, store)
    freeze(job, store)
    items = snapshot_items(store, snapshot.name)
    assert [item.source for item in items] == ["ranking"] * 3
    assert {item.account_id for item in items} == {ada.id}
