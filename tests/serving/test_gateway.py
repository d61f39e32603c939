"""The gateway before another Sanbai, and before small servers that speak as vLLM and llama.cpp do, or misbehave."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.serving.conftest import Site, ask, read_events, running_site
from tests.serving.foreign_server import MODEL, Connection, ForeignServer, Reply, chunk, foreign_server, usage

from sanbai.foundation.errors import RecipeError, UsageError
from sanbai.foundation.recipe import validate_recipe
from sanbai.generation.engine import ContinuousEngine
from sanbai.generation.request import NewToken
from sanbai.serving.app import GATEWAY_TABLE, TABLE
from sanbai.serving.gateway import Gateway
from sanbai.serving.recipe import ServeRecipe
from sanbai.text.tokenizer import Tokenizer

QUESTION: list[Any] = [{"role": "user", "content": "Who bakes bread?"}]
KEY = "sk-the-backends-own-secret"
ENVELOPE = {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def front(site: Site, tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Iterator[Site]:
    """A gateway before the session's Sanbai."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKEND_KEY", site.key())
        with running_site(
            tmp_path_factory.mktemp("front"),
            tokenizer,
            models=0,
            backend=f"{site.url}/v1",
            backend_key_variable="BACKEND_KEY",
        ) as made:
            yield made


@pytest.fixture(scope="module")
def foreign() -> Iterator[ForeignServer]:
    with foreign_server() as made:
        yield made


@pytest.fixture(scope="module")
def gate(foreign: ForeignServer, tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Iterator[Site]:
    """A gateway before a server that answers as each test says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKEND_KEY", KEY)
        with running_site(
            tmp_path_factory.mktemp("gate"),
            tokenizer,
            models=0,
            backend=f"{foreign.url}/v1/",
            backend_key_variable="BACKEND_KEY",
            backend_timeout_seconds=1.0,
            backend_retries=0,
        ) as made:
            yield made


@pytest.fixture
def says(foreign: ForeignServer) -> Callable[[Reply], ForeignServer]:
    def say(reply: Reply) -> ForeignServer:
        foreign.reply = reply
        foreign.asked.clear()
        foreign.gone.clear()
        return foreign

    return say


def client_of(site: Site) -> openai.OpenAI:
    return site.clients.enter_context(openai.OpenAI(base_url=f"{site.url}/v1", api_key=site.key(), max_retries=0))


def chat(site: Site, **more: Any) -> httpx2.Response:
    return site.program().post("/v1/chat/completions", json={"model": "sanbai", "messages": QUESTION, **more})


def read(stream: Any) -> tuple[str, list[str], Any]:
    text, reasons, found = "", [], None
    for part in stream:
        found = part.usage or found
        for choice in part.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    return text, reasons, found


def streamed(site: Site, **more: Any) -> tuple[str, list[str], Any]:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    return read(client_of(site).chat.completions.create(model="sanbai", messages=QUESTION, **options, **more))


# Before another Sanbai


def test_the_gateway_has_the_routes_of_the_server() -> None:
    rows = {(row.method, row.path): row.access for row in TABLE}
    own = {(row.method, row.path): row.access for row in GATEWAY_TABLE}
    assert own.items() <= rows.items()
    assert {path for _, path in rows.keys() - own.keys()} <= {"/v1/score", "/openapi.json"}


def test_an_answer_is_the_one_that_the_server_behind_gives(site: Site, front: Site) -> None:
    settings: dict[str, Any] = {"seed": 11, "temperature": 0.9, "top_p": 0.8, "max_tokens": 12, "n": 2}
    behind = client_of(site).chat.completions.create(model="sanbai", messages=QUESTION, **settings)
    found = client_of(front).chat.completions.create(model="sanbai", messages=QUESTION, **settings)
    assert [one.message.content for one in found.choices] == [one.message.content for one in behind.choices]
    assert [one.finish_reason for one in found.choices] == [one.finish_reason for one in behind.choices]
    assert found.usage == behind.usage
    assert found.id != behind.id


@pytest.mark.parametrize("max_tokens", [1, 5, 200])
def test_streamed_and_whole_are_equal(front: Site, max_tokens: int) -> None:
    settings: dict[str, Any] = {"seed": 4, "max_completion_tokens": max_tokens, "temperature": 1.0}
    whole = client_of(front).chat.completions.create(model="sanbai", messages=QUESTION, **settings)
    text, reasons, told = streamed(front, **settings)
    assert text == whole.choices[0].message.content
    assert reasons == [whole.choices[0].finish_reason]
    assert told == whole.usage


def test_what_a_request_leaves_out_is_as_the_gateway_says(site: Site, front: Site) -> None:
    """Its recipe draws at temperature 1 and 24 tokens; the server behind has the same here."""
    mine = client_of(front).chat.completions.create(model="sanbai", messages=QUESTION, seed=3)
    theirs = client_of(site).chat.completions.create(
        model="sanbai", messages=QUESTION, seed=3, temperature=1.0, top_p=1.0, max_tokens=24
    )
    assert mine.choices[0].message.content == theirs.choices[0].message.content


def test_texts_are_continued_and_scored_as_behind(site: Site, front: Site) -> None:
    for settings in (
        {"prompt": "Anna bakes", "max_tokens": 7, "temperature": 0},
        {"prompt": [[5, 9, 30], [40, 41]], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0},
    ):
        mine = client_of(front).completions.create(model="sanbai", **settings)  # type: ignore[call-overload]
        theirs = client_of(site).completions.create(model="sanbai", **settings)  # type: ignore[call-overload]
        assert [one.text for one in mine.choices] == [one.text for one in theirs.choices]
        assert [one.logprobs for one in mine.choices] == [one.logprobs for one in theirs.choices]
        assert mine.usage == theirs.usage
    parts = list(client_of(front).completions.create(model="sanbai", prompt="Anna", seed=1, stream=True))
    whole = client_of(front).completions.create(model="sanbai", prompt="Anna", seed=1)
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text


def test_models_vectors_and_tokens_come_from_behind(site: Site, front: Site, tokenizer: Tokenizer) -> None:
    names = [model.id for model in client_of(front).models.list()]
    assert names[0] == "sanbai"
    mine = client_of(front).embeddings.create(model="sanbai", input="Anna bakes").data[0].embedding
    assert mine == client_of(site).embeddings.create(model="sanbai", input="Anna bakes").data[0].embedding
    program = front.program()
    tokens = program.post("/tokenize", json={"prompt": "Anna bakes"}).json()["tokens"]
    assert tokens == tokenizer.encode("Anna bakes")
    assert program.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": "Anna bakes"}
    assert program.get("/tokenizer_info").status_code == 404
    assert program.get("/v1/models/nothing").json()["error"]["code"] == "model_not_found"


def test_refusals_from_behind_reach_who_asked(front: Site) -> None:
    response = chat(front, max_tokens=4, logit_bias={"99999": 1})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "logit_bias"
    long = site_problem(front, messages=[{"role": "user", "content": "word " * 5000}])
    assert long["code"] == "context_length_exceeded"


def site_problem(site: Site, **change: Any) -> dict[str, Any]:
    response = chat(site, **change)
    assert response.status_code == 400
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == ENVELOPE
    return error


def test_the_chat_page_works_unchanged(front: Site) -> None:
    client = front.client()
    asked = ask(client, seed=5)
    events = read_events(client, asked["generations"][0]["id"])
    assert {event["kind"] for event in events} <= {"text", "html", "done"}
    text = "".join(event["text"] for event in events if event["kind"] == "text")
    assert events[-1]["state"] == "done"
    assert events[-1]["tokens"] > 0
    kept = client.get(f"/api/conversations/{asked['conversation']}").json()["messages"][-1]
    assert kept["content"] == text != ""
    drafts = client.post(f"/api/conversations/{asked['conversation']}/messages", json={"content": "?", "drafts": 2})
    assert [read_events(client, one["id"])[-1]["kind"] for one in drafts.json()["generations"]] == ["done", "done"]
    assert [event["kind"] for event in read_events(client, asked["generations"][0]["id"])] == ["text", "done"]
    assert client.get("/api/models").json()["served"] == events[-1]["model"]


def test_a_chat_that_is_too_long_for_the_backend_loses_its_oldest_turns(front: Site) -> None:
    client = front.client()
    asked = ask(client, "first " * 25)
    read_events(client, asked["generations"][0]["id"])
    for content in ("second " * 17, "third"):
        more = client.post(f"/api/conversations/{asked['conversation']}/messages", json={"content": content}).json()
        assert read_events(client, more["generations"][0]["id"])[-1]["kind"] == "done"


@pytest.fixture
def slow_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    step = ContinuousEngine.step

    def slow(self: ContinuousEngine) -> list[NewToken]:
        time.sleep(0.03)
        return step(self)

    monkeypatch.setattr(ContinuousEngine, "step", slow)


def until(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


LONG: dict[str, Any] = {"max_tokens": 200, "seed": 4, "logit_bias": {"0": -100, "6": -100}}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_the_server_behind(
    site: Site, front: Site, slow_behind: None, *, stream: bool
) -> None:
    behind, gateway = site.app.state.house.engine, front.app.state.house.gateway
    body = {"model": "sanbai", "messages": QUESTION, "stream": stream, **LONG}
    program = front.program()
    with pytest.raises(httpx2.TimeoutException):  # noqa: PT012 - leaving is the point
        if stream:
            with program.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = response.iter_lines()
                assert '"role": "assistant"' in next(lines)
                assert behind.num_running == gateway.num_running == 1
                raise httpx2.ReadTimeout("enough")
        program.post("/v1/chat/completions", json=body, timeout=1.0)
    assert until(lambda: behind.num_running == gateway.num_running == 0, seconds=30.0)


def test_stop_in_the_chat_frees_the_server_behind_and_keeps_what_was_said(
    site: Site, front: Site, slow_behind: None
) -> None:
    client, behind = front.client(), site.app.state.house.engine
    asked = ask(client, seed=1)
    generation = asked["generations"][0]["id"]
    assert until(lambda: behind.num_running == 1)
    assert client.post(f"/api/generations/{generation}/stop", json={}).status_code == 200
    assert until(lambda: behind.num_running == 0, seconds=30.0)
    assert read_events(client, generation)[-1]["state"] in {"stopped", "done"}


# Dialects


def test_vllms_stream_is_ours(gate: Site, says: Callable[[Reply], ForeignServer]) -> None:
    foreign = says(
        lambda to: to.events(
            chunk({"role": "assistant", "content": ""}, usage=None),
            chunk({"content": "Good"}, logprobs=None),
            chunk({"content": " day"}, "stop", stop_reason=None),
            usage(7, 3),
        )
    )
    text, reasons, told = streamed(gate)
    assert (text, reasons) == ("Good day", ["stop"])
    assert (told.prompt_tokens, told.completion_tokens, told.total_tokens) == (7, 3, 10)
    assert foreign.last.path == "/v1/chat/completions"
    assert foreign.last.headers["authorization"] == f"Bearer {KEY}"
    assert foreign.last.body["model"] == MODEL
    assert foreign.last.body["stream_options"] == {"include_usage": True}


def test_llama_cpps_stream_is_ours_though_it_ends_without_done(
    gate: Site, says: Callable[[Reply], ForeignServer]
) -> None:
    last = chunk({}, "length", timings={"cache_n": 4, "prompt_n": 5, "predicted_n": 2})
    says(
        lambda to: to.events(chunk({"role": "assistant", "content": None}), chunk({"content": "Hm"}), last, done=False)
    )
    text, reasons, told = streamed(gate)
    assert (text, reasons) == ("Hm", ["length"])
    assert (told.prompt_tokens, told.completion_tokens) == (9, 2)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("stop", "stop"), ("eos", "stop"), ("eos_token", "stop"), ("max_tokens", "length"), ("tool_calls", "tool_calls")],
)
def test_reasons_have_openais_names_streamed_and_whole(
    gate: Site, says: Callable[[Reply], ForeignServer], theirs: str, ours: str
) -> None:
    says(lambda to: to.events(chunk({"content": "a"}), chunk({}, theirs), usage(1, 1)))
    assert streamed(gate)[1] == [ours]
    answer = {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": theirs}], **usage(1, 1)}
    answer["choices"] = [{"index": 0, "message": {"content": "a"}, "finish_reason": theirs}]
    says(lambda to: to.json(answer))
    assert chat(gate).json()["choices"][0]["finish_reason"] == ours


def test_tokens_that_the_backend_does_not_count_are_estimated_and_said_to_be(
    gate: Site, says: Callable[[Reply], ForeignServer]
) -> None:
    says(lambda to: to.events(chunk({"content": "four char"}), chunk({}, "stop")))
    told = streamed(gate)[2]
    assert (told.prompt_tokens, told.completion_tokens, told.total_tokens) == (4, 3, 7)
    assert told.estimated is True
    says(lambda to: to.json({"choices": [{"message": {"role": "assistant", "content": "word"}}]}))
    whole = chat(gate).json()
    assert whole["usage"]["completion_tokens"] == 1
    assert whole["choices"][0]["finish_reason"] == "stop"


def test_calls_of_tools_pass_through(gate: Site, says: Callable[[Reply], ForeignServer]) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    says(lambda to: to.events(chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), usage(1, 1)))
    parts = list(client_of(gate).chat.completions.create(model="sanbai", messages=QUESTION, stream=True))
    calls = [call for part in parts for choice in part.choices for call in choice.delta.tool_calls or []]
    assert calls[0].function is not None
    assert calls[0].function.name == "f"


def test_a_backend_that_does_not_stream_is_streamed(gate: Site, says: Callable[[Reply], ForeignServer]) -> None:
    answer = usage(2, 1) | {"choices": [{"index": 0, "message": {"content": "At once"}, "finish_reason": "stop"}]}
    says(lambda to: to.json(answer))
    assert streamed(gate)[:2] == ("At once", ["stop"])


def test_words_in_pieces_of_any_size_and_strange_characters_arrive(
    gate: Site, says: Callable[[Reply], ForeignServer]
) -> None:
    stream = (
        ': comment\r\n\r\ndata:{"choices":[{"index":0,"delta":{"content":"村\\ud83d里"},"logprobs":null}]}\r\n\r\n'
        'data: {"choices":[{"index":0,"delta":{"content":"x"},"logprobs":{"content":[{"logprob":-Infinity}]}}]}\n\n'
        'data: {"choices":[{"index":7,"delta":{"content":"none"}},5],"nan":NaN}\n\n'
        'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    ).encode()

    def bit_by_bit(to: Connection) -> None:
        to.begin()
        to.send(*(stream[place : place + 1] for place in range(len(stream))))

    says(bit_by_bit)
    assert streamed(gate)[:2] == ("村\ufffd里x", ["stop"])


# Failures


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (
            400,
            {"object": "error", "message": "bad top_k", "type": "BadRequestError", "code": 400},
            (400, "invalid_value"),
        ),
        (400, {"error": {"message": "no", "type": "t", "param": "n", "code": "out_of_range"}}, (400, "out_of_range")),
        (
            400,
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the context size",
                    "type": "exceed_context_size_error",
                }
            },
            (400, "context_length_exceeded"),
        ),
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 8 tokens.", "code": 400},
            (400, "context_length_exceeded"),
        ),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "too many", "input": "CANARY"}]}, (400, "invalid_value")),
        (404, {"error": {"message": "no such model", "code": 404}}, (404, "not_found")),
        (400, {"error": {"message": "\ud83d", "param": "\ud83d"}}, (400, "invalid_value")),
        (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, (502, "backend_failed")),
        (500, "<html>CANARY</html>", (502, "backend_failed")),
        (500, {"error": {"message": "CANARY"}}, (502, "backend_failed")),
        (204, "", (502, "backend_failed")),
        (504, "", (504, "backend_timeout")),
        (200, "no json", (502, "backend_failed")),
        (200, "[1]", (502, "backend_failed")),
        (200, "[" * 100_000, (502, "backend_failed")),
        (200, {"error": {"message": "too many tokens", "code": 400}}, (400, "context_length_exceeded")),
    ],
)
def test_foreign_refusals_have_our_envelope(
    gate: Site,
    says: Callable[[Reply], ForeignServer],
    status: int,
    body: object,
    wanted: tuple[int, str],
    *,
    stream: bool,
) -> None:
    says(lambda to: to.json(body, status))
    response = chat(gate, stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == wanted
    assert set(response.json()["error"]) == ENVELOPE
    assert KEY not in response.text
    assert "CANARY" not in response.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry_After": "7"}, "7"), ({"retry_after_ms": "1500"}, "2"), ({"Retry_After": "Wed"}, "2"), ({}, "2")],
)
def test_a_busy_backend_says_when_to_come_again(
    gate: Site, says: Callable[[Reply], ForeignServer], headers: dict[str, str], seconds: str, *, stream: bool
) -> None:
    says(lambda to: to.json({"error": "busy"}, 429, **headers))
    response = chat(gate, stream=stream)
    assert response.status_code == 429
    assert response.headers["retry-after"] == seconds
    assert response.json()["error"]["code"] == "rate_limit_exceeded"


def test_no_redirect_is_followed(gate: Site, says: Callable[[Reply], ForeignServer]) -> None:
    with foreign_server() as elsewhere:
        says(lambda to: to.json("", 307, Location=f"{elsewhere.url}/v1/chat/completions"))
        response = chat(gate)
        assert response.status_code == 502
        assert elsewhere.asked == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_silent_backend_is_given_up(gate: Site, says: Callable[[Reply], ForeignServer], *, stream: bool) -> None:
    foreign = says(lambda to: to.has_left() and None)
    response = chat(gate, stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "backend_timeout")
    assert foreign.gone.wait(5)


def broken_off(to: Connection) -> None:
    to.begin(Transfer_Encoding="chunked")
    part = b'data: {"choices":[{"index":0,"delta":{"content":"half"}}]}\n\n'
    to.send(b"%x\r\n%b\r\n" % (len(part), part), b"ff\r\nda")


def silent_in_the_middle(to: Connection) -> None:
    to.events(chunk({"content": "half"}), done=False)
    to.has_left()


def ends_without_a_word(to: Connection) -> None:
    to.events(chunk({"content": "half"}), done=False)


def endless_line(to: Connection) -> None:
    to.events(chunk({"content": "half"}), done=False)
    to.send("data: ")
    while to.send("x" * 100_000):
        pass


def error_of_its_own_kind(to: Connection) -> None:
    to.events(chunk({"content": "half"}), done=False)
    to.send('error: {"code": 500, "message": "CANARY"}\n\n')


FAILING: list[Reply] = [
    broken_off,
    silent_in_the_middle,
    ends_without_a_word,
    endless_line,
    lambda to: to.events(chunk({"content": "half"}), {"error": {"message": "CANARY", "code": 500}}),
    lambda to: to.events(chunk({"content": "half"}), {"object": "error", "message": "CANARY", "code": 500}),
    lambda to: to.events(chunk({"content": "half"}), chunk({}, "abort")),
    lambda to: to.events(chunk({"content": "half"}), "no json"),
    error_of_its_own_kind,
]


@pytest.mark.parametrize("reply", FAILING)
def test_a_stream_that_fails_ends_in_an_error_that_the_client_sees(
    gate: Site, says: Callable[[Reply], ForeignServer], reply: Reply
) -> None:
    says(reply)
    seen = []
    with pytest.raises(openai.APIError) as raised:  # noqa: PT012 - it comes after the first words
        for part in client_of(gate).chat.completions.create(model="sanbai", messages=QUESTION, stream=True):
            seen += [choice.delta.content for choice in part.choices]
    assert "".join(seen) == "half"
    assert "CANARY" not in str(raised.value.body)
    assert until(lambda: gate.app.state.house.gateway.num_running == 0)


@pytest.mark.parametrize("reply", FAILING)
def test_an_answer_in_the_chat_that_fails_says_so_and_keeps_its_words(
    gate: Site, says: Callable[[Reply], ForeignServer], reply: Reply
) -> None:
    says(reply)
    client = gate.client()
    asked = ask(client)
    events = read_events(client, asked["generations"][0]["id"])
    assert events[-1]["kind"] == "error" or events[-1]["state"] == "failed"  # the page came in time, or too late
    kept = client.get(f"/api/conversations/{asked['conversation']}").json()["messages"][-1]
    assert (kept["state"], kept["content"]) == ("failed", "half")


def test_after_the_last_word_nothing_can_spoil_the_answer(gate: Site, says: Callable[[Reply], ForeignServer]) -> None:
    """The connection hangs, breaks or says nonsense after the answer's end."""
    whole = (chunk({"content": "Good day"}), chunk({}, "stop"))
    for after in (lambda to: to.has_left(), lambda to: to.send("data: nonsense\n\n")):

        def reply(to: Connection, after: Callable[[Connection], object] = after) -> None:
            to.events(*whole, done=False)
            after(to)

        says(reply)
        assert streamed(gate)[:2] == ("Good day", ["stop"])


def test_a_client_that_goes_ends_the_request_behind(gate: Site, says: Callable[[Reply], ForeignServer]) -> None:
    def forever(to: Connection) -> None:
        to.begin()
        while to.send('data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'):
            time.sleep(0.01)

    foreign = says(forever)
    with gate.program().stream(
        "POST", "/v1/chat/completions", json={"model": "sanbai", "messages": QUESTION, "stream": True}
    ) as response:
        next(response.iter_lines())
    assert foreign.gone.wait(5)


def test_many_answers_are_limited_before_they_reach_the_backend(
    foreign: ForeignServer, says: Callable[[Reply], ForeignServer], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    release = threading.Event()

    def wait(to: Connection) -> None:
        release.wait(20)
        to.json(usage(1, 1) | {"choices": [{"message": {"content": "a"}}]})

    says(wait)
    with running_site(
        tmp_path, tokenizer, models=0, backend=f"{foreign.url}/v1", max_running=1, max_waiting=0
    ) as small:
        busy = threading.Thread(target=chat, args=(small,))
        busy.start()
        assert until(lambda: bool(foreign.asked))
        refused = chat(small)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "2"
        release.set()
        busy.join()
        assert "authorization" not in foreign.last.headers
        assert len(foreign.asked) == 1


def test_without_a_backend_everything_says_so_at_once(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with running_site(tmp_path, tokenizer, models=0, backend="http://127.0.0.1:9/v1", backend_retries=0) as lonely:
        response = chat(lonely)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        assert lonely.stranger().get("/ready").status_code == 503
        assert lonely.stranger().get("/health").status_code == 200
        client = lonely.client()
        conversation = client.post("/api/conversations", json={}).json()["id"]
        asked = client.post(f"/api/conversations/{conversation}/messages", json={"content": "Hello?"})
        assert asked.status_code == 503
        assert client.get("/api/welcome").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("failures", "status"), [(1, 200), (2, 502)])
def test_what_fails_before_its_first_word_is_sent_again(
    foreign: ForeignServer,
    says: Callable[[Reply], ForeignServer],
    tmp_path: Path,
    tokenizer: Tokenizer,
    failures: int,
    status: int,
    *,
    stream: bool,
) -> None:
    def reply(to: Connection) -> None:
        if len(foreign.asked) > failures:
            to.json(usage(1, 1) | {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]})
        elif len(foreign.asked) == 1:
            to.json("", 500)  # the second time the connection is closed without a word

    says(reply)
    backend = f"{foreign.url}/v1"
    with running_site(tmp_path, tokenizer, models=0, backend=backend, backend_retries=1) as patient:
        assert chat(patient, stream=stream).status_code == status
    assert len(foreign.asked) == 2


def test_only_what_the_schema_knows_is_sent_on(gate: Site, says: Callable[[Reply], ForeignServer]) -> None:
    foreign = says(lambda to: to.json(usage(1, 1) | {"choices": [{"message": {"content": "a"}}]}))
    chat(gate, top_k=5, kv_transfer_params={"host": "10.0.0.1"}, max_completion_tokens=4, stop=["x"])
    assert foreign.last.body == {
        "model": MODEL,
        "messages": QUESTION,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 5,
        "max_tokens": 4,
        "stop": ["x"],
    }
    image = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    foreign.asked.clear()
    assert chat(gate, messages=[{"role": "user", "content": [image]}]).status_code == 400
    assert chat(gate, temperature=7).json()["error"]["param"] == "temperature"
    assert chat(gate, n=17).json()["error"]["param"] == "n"
    assert chat(gate, model="other").json()["error"]["code"] == "model_not_found"
    assert foreign.asked == []


def test_no_log_holds_the_key_or_a_word_of_a_conversation(
    gate: Site, says: Callable[[Reply], ForeignServer], caplog: pytest.LogCaptureFixture
) -> None:
    canary = "CANARYWORD"
    messages = [{"role": "user", "content": canary}]
    with caplog.at_level(logging.DEBUG):
        for reply in (
            lambda to: to.events(chunk({"content": canary}), chunk({}, "stop"), usage(1, 1)),
            lambda to: to.json({"detail": [{"loc": [], "msg": canary, "input": canary}]}, 422),
            lambda to: to.json(canary, 500),
            broken_off,
        ):
            says(reply)
            chat(gate, messages=messages, stream=True)
            client = gate.client()
            read_events(client, ask(client, canary)["generations"][0]["id"])
    told = "\n".join(f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records)
    assert "/v1/chat/completions" in told  # something is logged
    for secret in (canary, KEY, "sk-"):
        assert secret not in told
    page = gate.program("admin").get("/metrics").text
    assert canary not in page
    assert 'sanbai_request_success_total{finished_reason="stop"' in page


# Settings


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/v1",
        "127.0.0.1:8000",
        "http://",
        "http://anna:secret@x/v1",
        "http://x/v1?key=secret",
        "http://x/#a",
        "http://x:99999/v1",
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(RecipeError, match=r"backend: wanted|[Pp]ort") as raised:
        validate_recipe(ServeRecipe, {"backend": url}, source="--backend")
    assert "secret" not in str(raised.value)


def test_a_key_that_is_not_in_the_environment_is_missed_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UsageError, match=r"^serve\.backend_key_variable: NO_SUCH_KEY is not set"):
        Gateway(ServeRecipe(backend="http://127.0.0.1:1/v1", backend_key_variable="NO_SUCH_KEY"))
