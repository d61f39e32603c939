from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.serving.conftest import Site, ask, read_events, running_site

from sanbai.feedback.accounts import add_account, make_api_key
from sanbai.feedback.registry import serve
from sanbai.generation.engine import ContinuousEngine
from sanbai.generation.request import NewToken
from sanbai.text.tokenizer import Tokenizer


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes 30 ms, so that something can happen in between."""
    step = ContinuousEngine.step

    def slow(self: ContinuousEngine) -> list[NewToken]:
        time.sleep(0.03)
        return step(self)

    monkeypatch.setattr(ContinuousEngine, "step", slow)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """No answer goes on before the event is set."""
    release, step = threading.Event(), ContinuousEngine.step

    def wait(self: ContinuousEngine) -> list[NewToken]:
        release.wait(30)
        return step(self)

    monkeypatch.setattr(ContinuousEngine, "step", wait)
    yield release
    release.set()


def messages_of(client: httpx2.Client, conversation: str) -> list[dict[str, Any]]:
    return client.get(f"/api/conversations/{conversation}").json()["messages"]


def test_an_answer_streams_and_is_kept_as_it_was_streamed(site: Site) -> None:
    client = site.client()
    asked = ask(client, seed=7)
    (generation,) = asked["generations"]
    events = read_events(client, generation["id"])
    assert [event["seq"] for event in events] == list(range(len(events)))
    done = events[-1]
    assert done["kind"] == "done"
    text = "".join(event["text"] for event in events if event["kind"] == "text")
    question, answer = messages_of(client, asked["conversation"])
    assert (question["role"], question["content"], question["parent_id"]) == ("user", "Who bakes bread?", None)
    assert answer["id"] == generation["message_id"]
    assert (answer["content"], answer["html"], answer["state"]) == (text, done["html"], "done")
    assert (answer["model"], answer["finish_reason"]) == ("model-0", done["finish_reason"])
    assert (answer["parent_id"], answer["generation_id"]) == (question["id"], generation["id"])


def test_the_same_seed_gives_the_same_answer_and_another_one_another(site: Site) -> None:
    client = site.client()
    contents = []
    for seed in (5, 5, 6):
        asked = ask(client, seed=seed)
        read_events(client, asked["generations"][0]["id"])
        contents.append(messages_of(client, asked["conversation"])[1]["content"])
    assert contents[0] == contents[1] != contents[2]


def test_a_simulated_labeler_gets_the_same_answer_again_a_person_another(site: Site) -> None:
    for source, same in (("simulated", True), ("person", False)):
        account = add_account(site.store, f"{source}-asker", "labeler", source=source)  # type: ignore[arg-type]
        client = site.stranger()
        client.headers["Authorization"] = f"Bearer {make_api_key(site.store, account)}"
        contents = []
        for _ in range(2):
            asked = ask(client)
            read_events(client, asked["generations"][0]["id"])
            contents.append(messages_of(client, asked["conversation"])[1]["content"])
        assert (contents[0] == contents[1]) is same


@pytest.mark.usefixtures("slowly")
def test_a_page_that_comes_back_misses_nothing(site: Site) -> None:
    client = site.client()
    (generation,) = ask(client, seed=7)["generations"]
    with client.stream("GET", f"/api/generations/{generation['id']}/events") as response:
        lines = response.iter_lines()
        seen = [next(lines) for _ in range(12)]
    last_seen = max(int(line.removeprefix("id: ")) for line in seen if line.startswith("id: "))
    rest = read_events(client, generation["id"], after=last_seen)
    whole = read_events(client, generation["id"])
    assert rest[0]["seq"] == last_seen + 1 or rest[0]["kind"] == "done"
    assert rest[-1]["html"] == whole[-1]["html"]


@pytest.mark.usefixtures("slowly")
def test_an_answer_is_finished_and_kept_when_the_browser_goes_away(site: Site) -> None:
    client = site.client()
    asked = ask(client, seed=7)
    growing = messages_of(client, asked["conversation"])[-1]
    assert growing["state"] == "streaming"
    deadline = time.monotonic() + 20
    while messages_of(client, asked["conversation"])[-1]["state"] == "streaming":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = messages_of(client, asked["conversation"])[-1]
    assert kept["state"] == "done"
    events = read_events(client, asked["generations"][0]["id"], after=3)  # long after its end
    assert [event["kind"] for event in events] == ["done"]
    assert events[0]["html"] == kept["html"]


@pytest.mark.usefixtures("slowly")
def test_stop_ends_at_the_next_token_and_keeps_what_is_there(site: Site) -> None:
    client = site.client()
    asked = ask(client, seed=7)
    (generation,) = asked["generations"]
    time.sleep(0.2)
    began = time.monotonic()
    assert client.post(f"/api/generations/{generation['id']}/stop").status_code == 200
    done = read_events(client, generation["id"])[-1]
    assert time.monotonic() - began < 0.5
    assert (done["state"], messages_of(client, asked["conversation"])[-1]["state"]) == ("stopped", "stopped")
    assert done["tokens"] < 24
    assert client.post(f"/api/generations/{generation['id']}/stop").status_code == 200  # again: nothing to do


def test_a_regenerated_answer_is_a_sibling(site: Site) -> None:
    client = site.client()
    asked = ask(client, seed=7)
    read_events(client, asked["generations"][0]["id"])
    first = asked["generations"][0]["message_id"]
    again = client.post(f"/api/messages/{first}/regenerate", json={"seed": 8}).json()["generation"]
    read_events(client, again["id"])
    question, *answers = messages_of(client, asked["conversation"])
    assert [answer["parent_id"] for answer in answers] == [question["id"]] * 2
    assert answers[0]["content"] != answers[1]["content"]


def test_two_drafts_are_shown_and_one_is_chosen(site: Site) -> None:
    client = site.client()
    asked = ask(client, drafts=2, seed=3)
    assert len(asked["generations"]) == 2
    for generation in asked["generations"]:
        read_events(client, generation["id"])
    chosen = client.post(f"/api/drafts/{asked['drafts_id']}/choose", json={"choice": 1, "idempotency_key": "k"})
    assert chosen.status_code == 200
    drafts = messages_of(client, asked["conversation"])[1:]
    by_id = {draft["id"]: draft for draft in drafts}
    first, second = (by_id[generation["message_id"]] for generation in asked["generations"])
    assert first["content"] != second["content"]
    assert (first["drafts_id"], first["chosen"], second["chosen"]) == (asked["drafts_id"], False, True)


def test_a_thumb_is_kept_and_sent_twice_is_one(site: Site) -> None:
    client = site.client()
    asked = ask(client)
    read_events(client, asked["generations"][0]["id"])
    place = f"/api/messages/{asked['generations'][0]['message_id']}/feedback"
    thumb = {"kind": "thumb", "value": -1, "reason": "wrong", "comment": "", "idempotency_key": "one"}
    assert client.post(place, json=thumb).json() == client.post(place, json=thumb).json()
    assert messages_of(client, asked["conversation"])[1]["feedback"] == {
        "value": -1,
        "reason": "wrong",
        "comment": "",
    }
    refused = client.post(f"/api/messages/{asked['message']['id']}/feedback", json=thumb)
    assert refused.status_code == 400


def test_conversations_are_listed_renamed_and_deleted(site: Site) -> None:
    client = site.client()
    ids = [ask(client, f"question {number}")["conversation"] for number in range(3)]
    page = client.get("/api/conversations?limit=2").json()
    assert ([one["id"] for one in page["conversations"]], page["more"]) == (ids[:0:-1], True)
    rest = client.get(f"/api/conversations?limit=2&before={page['conversations'][-1]['id']}").json()
    assert ([one["title"] for one in rest["conversations"]], rest["more"]) == (["question 0"], False)
    assert client.patch(f"/api/conversations/{ids[0]}", json={"title": "first"}).status_code == 200
    assert client.get(f"/api/conversations/{ids[0]}").json()["title"] == "first"
    assert client.delete(f"/api/conversations/{ids[0]}").status_code == 200
    assert client.get(f"/api/conversations/{ids[0]}").status_code == 404
    assert len(client.get("/api/conversations").json()["conversations"]) == 2


@pytest.mark.usefixtures("slowly")
def test_deleting_a_conversation_stops_its_answer(site: Site) -> None:
    client = site.client()
    asked = ask(client)
    assert client.delete(f"/api/conversations/{asked['conversation']}").status_code == 200
    deadline = time.monotonic() + 5
    while site.app.state.house.engine.num_running:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_long_conversation_is_cut_to_the_models_context(site: Site) -> None:
    client = site.client()
    asked = ask(client, "word " * 5000)
    assert read_events(client, asked["generations"][0]["id"])[-1]["kind"] == "done"


def test_the_welcome_comes_in_its_order(site: Site) -> None:
    words = site.client().get("/api/welcome").json()
    assert words["greeting"] == "Good day."
    assert [example["title"] for example in words["examples"]] == ["A riddle", "Sum"]


@pytest.mark.usefixtures("slowly")
def test_a_full_queue_refuses_with_retry_after(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with running_site(tmp_path, tokenizer, max_running=1, max_waiting=1, max_active_per_account=100) as small:
        client = small.client()
        conversation = client.post("/api/conversations", json={}).json()["id"]
        place = f"/api/conversations/{conversation}/messages"
        statuses = []
        for number in range(6):
            response = client.post(place, json={"content": f"question {number}"})
            statuses.append(response.status_code)
            if response.status_code == 429:
                assert int(response.headers["retry-after"]) >= 1
                assert response.json()["error"]["code"] == "rate_limit_exceeded"
        assert statuses[:2] == [200, 200]
        assert 429 in statuses
        # What was refused left nothing behind.
        asked = [one for one in messages_of(client, conversation) if one["role"] == "user"]
        assert len(asked) == statuses.count(200)


def test_one_account_cannot_take_all_workers(tmp_path: Path, tokenizer: Tokenizer, held: threading.Event) -> None:
    with running_site(tmp_path, tokenizer, max_active_per_account=2) as small:
        greedy, modest = small.client(), small.client()
        ask(greedy), ask(greedy)
        conversation = greedy.post("/api/conversations", json={}).json()["id"]
        refused = greedy.post(f"/api/conversations/{conversation}/messages", json={"content": "more"})
        assert refused.status_code == 429
        ask(modest)
        held.set()


@pytest.mark.usefixtures("slowly")
def test_a_swap_leaves_the_stream_in_flight_alone_and_new_answers_take_the_new_model(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    with running_site(tmp_path, tokenizer, models=2) as two:
        client = two.client()
        old = ask(client, seed=7)
        following: list[dict[str, Any]] = []
        reader = threading.Thread(target=lambda: following.extend(read_events(client, old["generations"][0]["id"])))
        reader.start()
        serve(two.store, "model-1", round=1, actor="test")
        deadline = time.monotonic() + 10
        while two.app.state.house.engine.served_name != "model-1":  # the engine's own watch finds it
            assert time.monotonic() < deadline
            time.sleep(0.05)
        new = ask(client, seed=7)
        done = read_events(client, new["generations"][0]["id"])[-1]
        reader.join(timeout=20)
        assert (done["model"], done["round"]) == ("model-1", 1)
        again = read_events(client, new["generations"][0]["id"])[-1]  # long ended: told from what is stored
        assert {**again, "seq": 0, "seconds": 0} == {**done, "seq": 0, "seconds": 0}
        assert (following[-1]["kind"], following[-1]["model"]) == ("done", "model-0")
        undisturbed = ask(client, seed=7)  # the old answer is what the old model says: not the new one's
        read_events(client, undisturbed["generations"][0]["id"])
        assert messages_of(client, old["conversation"])[1]["content"] != done["html"]


def test_a_server_without_a_model_says_so(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with running_site(tmp_path, tokenizer, models=0) as bare:
        client = bare.client()
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
        conversation = client.post("/api/conversations", json={}).json()["id"]
        refused = client.post(f"/api/conversations/{conversation}/messages", json={"content": "hello"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
