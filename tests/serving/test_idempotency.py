from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.serving.conftest import Site, running_site
from tests.serving.test_openai_api import QUESTION, slowly

from sanbai.generation.engine import ContinuousEngine
from sanbai.serving import idempotency
from sanbai.text.tokenizer import Tokenizer

__all__ = ["slowly"]

BODY: dict[str, Any] = {"model": "sanbai", "messages": QUESTION, "max_tokens": 12, "temperature": 1.0}


@pytest.fixture
def program(site: Site) -> httpx2.Client:
    return site.program()


def ask(program: httpx2.Client, key: str, **change: Any) -> httpx2.Response:
    return program.post("/v1/chat/completions", json=BODY | change, headers={"Idempotency-Key": key})


def test_the_same_key_and_body_give_the_same_answer(program: httpx2.Client) -> None:
    first, second, other = ask(program, "a"), ask(program, "a"), ask(program, "b")
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert other.json()["id"] != first.json()["id"]


def test_a_stream_is_replayed_whole(program: httpx2.Client) -> None:
    first, second = ask(program, "stream", stream=True), ask(program, "stream", stream=True)
    assert first.content == second.content
    assert first.text.endswith("data: [DONE]\n\n")
    assert second.headers["content-type"] == first.headers["content-type"]


def test_a_key_of_another_body_is_refused_and_need_not_be_tried_again(site: Site, program: httpx2.Client) -> None:
    ask(program, "reused")
    refused = ask(program, "reused", max_tokens=3)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert refused.headers["x-should-retry"] == "false"
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key=site.key(), max_retries=5) as client:
        headers = {"Idempotency-Key": "theirs"}
        client.chat.completions.create(model="sanbai", messages=QUESTION, max_tokens=1, extra_headers=headers)
        with pytest.raises(openai.UnprocessableEntityError):
            client.chat.completions.create(model="sanbai", messages=QUESTION, max_tokens=2, extra_headers=headers)


def test_a_key_is_one_accounts_and_one_routes(site: Site, program: httpx2.Client) -> None:
    first = ask(program, "mine")
    assert ask(site.program(), "mine", max_tokens=3).status_code == 200
    text = {"model": "sanbai", "prompt": "x"}
    assert program.post("/v1/completions", json=text, headers={"Idempotency-Key": "mine"}).status_code == 200
    assert ask(program, "mine").content == first.content


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ä"])
def test_a_key_that_is_none_is_refused(program: httpx2.Client, key: str) -> None:
    refused = program.post("/v1/chat/completions", json=BODY, headers={b"Idempotency-Key": key.encode()})
    assert refused.status_code == 400
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


def test_a_refusal_and_a_failure_are_not_kept(program: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(_: ContinuousEngine) -> Any:
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr(ContinuousEngine, "step", breaking)
        assert ask(program, "failed").status_code == 500
        assert "error" in ask(program, "failed-stream", stream=True).text
    assert ask(program, "failed").status_code == 200
    assert ask(program, "failed-stream", stream=True).text.endswith("data: [DONE]\n\n")
    assert ask(program, "refused", n=0).status_code == 400
    assert ask(program, "refused", n=0).headers.get("idempotent-replayed") is None


def test_who_asks_again_meanwhile_waits_for_the_one_answer(program: httpx2.Client, slowly: list[int]) -> None:
    answers: list[httpx2.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(program, "both"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 3
    assert len(slowly) <= 12


def test_an_answer_that_nobody_stayed_for_is_made_anew(
    program: httpx2.Client, slowly: list[int], tokenizer: Tokenizer
) -> None:
    endless = {"max_tokens": 100, "logit_bias": {str(token): -100 for token in tokenizer.reserved.ends()}}
    with pytest.raises(httpx2.ReadTimeout):
        program.post("/v1/chat/completions", json=BODY | endless, headers={"Idempotency-Key": "gone"}, timeout=0.3)
    slowly.clear()
    assert ask(program, "gone", **endless).headers.get("idempotent-replayed") is None
    assert slowly


@pytest.fixture
def forgetful(tmp_path: Path, tokenizer: Tokenizer) -> Iterator[httpx2.Client]:
    with running_site(tmp_path, tokenizer, idempotency_seconds=0) as made:
        yield made.program()


def test_nothing_is_kept_where_that_is_wanted(forgetful: httpx2.Client) -> None:
    assert ask(forgetful, "a").json()["id"] != ask(forgetful, "a").json()["id"]


def test_the_oldest_make_room(program: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(program, "oldest")
    monkeypatch.setattr(idempotency, "MOST_BYTES", 3 * len(first.content))
    for number in range(4):
        ask(program, f"newer {number}".replace(" ", "-"))
    assert ask(program, "oldest").json()["id"] != first.json()["id"]
    assert ask(program, "newer-3").headers["idempotent-replayed"] == "true"
