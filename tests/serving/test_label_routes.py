from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.serving.conftest import Site, running_site

from sanbai.feedback.accounts import Account, find_account
from sanbai.feedback.consent import set_consent
from sanbai.feedback.snapshots import freeze
from sanbai.feedback.tasks import LabelTask, add_tasks
from sanbai.text.tokenizer import Tokenizer

RESPONSES = ("**Anna** bakes.", "Bert bakes.", "Anna does.", "Bert bakes. ", "<b>nobody</b>")


@pytest.fixture
def place(tmp_path: Path, tokenizer: Tokenizer) -> Iterator[Site]:
    """A server without a model is enough to label."""
    with running_site(tmp_path, tokenizer, models=0) as made:
        yield made


def make_tasks(
    place: Site, number: int, *, to: Account | None = None, responses: tuple[str, ...] = RESPONSES
) -> list[str]:
    tasks = [LabelTask(({"role": "user", "content": f"Who bakes {n}?"},), responses, round=1) for n in range(number)]
    add_tasks(place.store, tasks, assignees={task.id: [to] for task in tasks} if to else None)
    return [task.id for task in tasks]


def who(place: Site, client: httpx2.Client) -> Account:
    return find_account(place.store, client.get("/api/me").json()["name"])


def test_a_person_ranks_what_is_shown_and_the_snapshot_holds_it(place: Site) -> None:
    (task_id,) = make_tasks(place, 1)
    client = place.client("labeler", "lena")
    task = client.get("/api/label/next").json()["task"]
    assert task["id"] == task_id
    assert task["messages"][0]["html"] == "<p>Who bakes 0?</p>\n"
    shown = {one["position"]: one for one in task["responses"]}
    assert sorted(shown) == [0, 1, 2, 4]  # the fourth says what the second says
    assert shown[0]["html"] == "<p><strong>Anna</strong> bakes.</p>\n"
    assert shown[4]["html"] == "<p>&lt;b&gt;nobody&lt;/b&gt;</p>\n"
    assert {"name": "hallucination", "text": "Hallucination: claims what is not so"} in task["flags"]
    order = [one["position"] for one in task["responses"]]
    ratings = [{"likert": 1 + place_, "flags": [], "note": ""} for place_ in range(4)]  # in the order shown
    answer = {"buckets": [[0, 2], [1], [4]], "ratings": ratings, "not_rankable": False, "milliseconds": 5000}
    assert client.post(f"/api/label/tasks/{task_id}/answer", json=answer).status_code == 200
    assert client.get("/api/label/next").json()["task"] is None
    assert client.get("/api/label/next").json()["reason"]
    set_consent(place.store, who(place, client), granted=True)
    (row,) = freeze(place.store, up_to_round=1).rankings
    assert row["buckets"] == [[0, 2], [1, 3], [4]]
    assert (row["labeler"], row["source"]) == ("lena", "person")
    likert = {position: 1 + place_ for place_, position in enumerate(order)}
    assert [rating["likert"] for rating in row["ratings"]] == [likert[0], likert[1], likert[2], likert[1], likert[4]]


def test_a_wrong_ranking_is_refused_in_one_line(place: Site) -> None:
    (task_id,) = make_tasks(place, 1)
    client = place.client("labeler")
    client.get("/api/label/next")
    for buckets, complaint in (
        ([[0, 1], [1, 2], [4]], "answer 1 is named twice"),
        ([[0], [1]], "is missing"),
        ([[0], [1], [2], [9]], "found answer 9"),
        ([], "empty list"),
    ):
        refused = client.post(f"/api/label/tasks/{task_id}/answer", json={"buckets": buckets})
        assert refused.status_code == 400
        assert complaint in refused.json()["error"]["message"]
    assert client.get("/api/label/progress").json() == {"answered": 0, "open": 1, "mine": 0, "agreement": None}


def test_what_is_sent_twice_is_kept_once(place: Site) -> None:
    (task_id,) = make_tasks(place, 1)
    client = place.client("labeler")
    client.get("/api/label/next")
    answer = {"buckets": [[0], [1], [2], [4]], "idempotency_key": "once"}
    first = client.post(f"/api/label/tasks/{task_id}/answer", json=answer)
    assert first.json() == client.post(f"/api/label/tasks/{task_id}/answer", json=answer).json()
    assert client.get("/api/label/progress").json()["mine"] == 1


def test_two_labelers_agreement_is_counted_with_its_interval(place: Site) -> None:
    tasks = [LabelTask(({"role": "user", "content": str(n)},), ("a", "b"), overlap=2) for n in range(10)]
    add_tasks(place.store, tasks)
    for name, wrong in (("lena", 0), ("mara", 2)):
        client = place.client("labeler", name)
        for number in range(10):
            task = client.get("/api/label/next").json()["task"]
            buckets = [[1], [0]] if number < wrong else [[0], [1]]
            client.post(f"/api/label/tasks/{task['id']}/answer", json={"buckets": buckets})
    agreement = client.get("/api/label/progress").json()["agreement"]
    assert (agreement["mean"], agreement["n"]) == (0.8, 10)
    assert agreement["low"] < 0.8 < agreement["high"]


def test_a_program_answers_its_tasks_in_batches_all_or_nothing(place: Site) -> None:
    program = place.program("labeler")
    account = who(place, program)
    ids = make_tasks(place, 250, to=account, responses=("a", "b", "c", "d", "e", "f"))
    answered = 0
    while tasks := program.get("/api/label/tasks?limit=100").json()["tasks"]:
        answers = [
            {
                "task_id": task["id"],
                "buckets": [[1], [0, 2], [3], [5, 4]],
                "ratings": [{"likert": 4, "flags": ["opinion"], "note": ""}] * len(task["responses"]),
                "milliseconds": 1,
            }
            for task in tasks
        ]
        broken = [*answers[:-1], answers[-1] | {"buckets": [[0, 0]]}]
        if not answered:
            assert program.post("/api/label/answers", json={"answers": broken}).status_code == 400
            assert program.get("/api/label/progress").json()["mine"] == 0
        accepted = program.post("/api/label/answers", json={"answers": answers})
        assert accepted.json() == {"accepted": len(answers)}
        answered += len(answers)
    assert answered == len(ids) == 250


def test_a_task_of_another_labeler_is_not_found(place: Site) -> None:
    program = place.program("labeler")
    (task_id,) = make_tasks(place, 1, to=who(place, program))
    other = place.program("labeler")
    assert other.get("/api/label/tasks").json() == {"tasks": []}
    answer = {"task_id": task_id, "buckets": [[0, 1, 2, 3, 4]]}
    assert other.post("/api/label/answers", json={"answers": [answer]}).status_code == 404


def test_a_demonstration_is_kept(place: Site) -> None:
    client = place.client("labeler")
    said = [{"role": "user", "content": "Who bakes?"}, {"role": "assistant", "content": "Anna."}]
    assert client.post("/api/label/demonstrations", json={"messages": said}).status_code == 200
    assert client.post("/api/label/demonstrations", json={"messages": said[::-1]}).status_code == 400
    set_consent(place.store, who(place, client), granted=True)
    assert freeze(place.store, up_to_round=0).demonstrations[0]["messages"] == said
