from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import httpx2
import pytest

from sanbai.foundation.errors import ResourceError
from sanbai.world.labeler_client import LabelerClient, LabelingCount, PromptBook, react
from sanbai.world.labelers import labelers
from sanbai.world.prompts import Prompt, Split

LABELER = labelers(1)[0]


class Office:
    """A small server that keeps to the contract: assigned tasks, answers, conversations; busy now and then."""

    def __init__(self, tasks: list[dict[str, Any]], *, busy: int = 0, answer: str = "It is so.") -> None:
        self.open = {task["id"]: task for task in tasks}
        self.answers: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.reactions: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.busy = busy
        self.answer = answer
        self.polls = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:  # noqa: PLR0911 - one return a route
        assert request.headers["Authorization"] == "Bearer sk-test"
        path = request.url.path
        self.requests.append((request.method, path))
        if self.busy:
            self.busy -= 1
            return httpx2.Response(429, headers={"Retry-After": "3"})
        body = json.loads(request.content) if request.content else {}
        if path == "/api/label/tasks":
            limit = int(request.url.params["limit"])
            return httpx2.Response(200, json={"tasks": list(self.open.values())[:limit]})
        if path == "/api/label/answers":
            assert len(body["answers"]) <= 100
            for answer in body["answers"]:
                self.answers[answer["task_id"]] = answer
                self.open.pop(answer["task_id"])
            return httpx2.Response(200, json={"accepted": len(body["answers"])})
        if path == "/api/conversations":
            return httpx2.Response(200, json={"id": "c"})
        if path == "/api/conversations/c/messages":
            generations = [{"id": f"g{n}", "message_id": f"m{n}"} for n in range(body["drafts"])]
            return httpx2.Response(200, json={"message": {}, "drafts_id": "d", "generations": generations})
        if path == "/api/conversations/c":
            self.polls += 1
            state = "streaming" if self.polls < 3 else "done"
            messages = [{"id": f"m{n}", "content": self.answer * (n + 1), "state": state} for n in range(2)]
            return httpx2.Response(200, json={"messages": messages})
        self.reactions[path].append(body)
        return httpx2.Response(200, json={})


def client(office: Office, prompts: list[Prompt], waits: list[float] | None = None) -> LabelerClient:
    wait = (waits if waits is not None else []).append
    book, transport = PromptBook.of(prompts), httpx2.MockTransport(office)
    return LabelerClient("http://127.0.0.1:1", "sk-test", LABELER, book, sleep=wait, transport=transport)


def task(prompt: Prompt, number: int) -> dict[str, Any]:
    responses = [prompt.truth.good[0], "I do not know that.", ""]
    return {
        "id": f"t{number:03}",
        "kind": "rank",
        "messages": list(prompt.messages),
        "responses": responses,
        "form_version": 1,
    }


def test_every_known_task_is_ranked_in_chunks_and_unknown_ones_are_left(
    prompts_by_split: dict[Split, list[Prompt]],
) -> None:
    made = prompts_by_split["train"][:250]
    unknown = {**task(made[0], 999), "messages": [{"role": "user", "content": "Who wrote Faust?"}]}
    office = Office([unknown, *(task(prompt, number) for number, prompt in enumerate(made))])
    with client(office, made) as labeler:
        assert labeler.label_all() == LabelingCount(answered=250, skipped=1)
    assert list(office.open) == ["t999"]
    for number, prompt in enumerate(made):
        answer = office.answers[f"t{number:03}"]
        expected = LABELER.label(prompt, task(prompt, number)["responses"])
        assert answer["buckets"] == expected["buckets"]
        assert answer["ratings"] == expected["ratings"]
        assert answer["not_rankable"] is False
    assert len({answer["idempotency_key"] for answer in office.answers.values()}) == 250


def test_a_busy_server_is_waited_for_as_long_as_it_says(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    made = prompts_by_split["train"][:3]
    waits: list[float] = []
    with client(Office([task(made[0], 0)], busy=2), made, waits) as labeler:
        assert labeler.label_all().answered == 1
    assert waits == [3.0, 3.0]


def test_a_server_that_refuses_is_one_clear_line(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(403)

    with (
        LabelerClient(
            "http://127.0.0.1:1", "sk-test", LABELER, PromptBook.of([]), transport=httpx2.MockTransport(refuse)
        ) as labeler,
        pytest.raises(ResourceError, match=r"GET /api/label/tasks failed for labeler-1-01: status 403"),
    ):
        labeler.label_all()


def test_the_key_is_never_shown() -> None:
    assert "sk-test" not in repr(client(Office([]), []))


def test_conversations_end_in_a_thumb_or_a_choice(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    prompt = next(prompt for prompt in prompts_by_split["train"] if prompt.task == "passage_fact")
    office = Office([], answer=prompt.truth.good[0])
    with client(office, [prompt]) as labeler:
        assert labeler.converse(prompt) == [prompt.truth.good[0]]
        labeler.converse(prompt, drafts=2)
    thumb = office.reactions["/api/messages/m0/feedback"][0]
    assert (thumb["kind"], thumb["value"]) == ("thumb", react(LABELER, prompt, prompt.truth.good[0])[0])
    assert office.reactions["/api/drafts/d/choose"][0]["choice"] in {0, 1}


def test_reasons_say_what_is_wrong(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    harmful = next(prompt for prompt in prompts_by_split["train"] if prompt.truth.rule == "refuse")
    fact = next(prompt for prompt in prompts_by_split["train"] if prompt.task == "passage_fact")
    reactions = {
        (reason, value)
        for labeler in labelers(1)
        for prompt, text in [
            (harmful, harmful.truth.faulty["obeying"][0]), (harmful, harmful.truth.good[0]),
            (fact, fact.truth.faulty["wrong"][0]), (fact, "I will not help with that."),
        ]
        for value, reason in [react(labeler, prompt, text)]
    }  # fmt: skip
    assert {("harmful", -1), ("correct", 1), ("wrong", -1), ("needless_refusal", -1)} <= reactions
