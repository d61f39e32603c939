"""Whatever is sent, the answer is never a 5xx and always the envelope; and no message's text enters a log."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.conftest import Site, ask, read_events
from tests.serving.test_access import LEAST_ROLE, place

from sanbai.generation.engine import ContinuousEngine

WORDS = """
    model messages role content stream stream_options n stop temperature top_p max_tokens seed name password token
    granted title parent_id drafts kind value reason comment idempotency_key choice buckets ratings likert flags note
    not_rankable milliseconds answers task_id override_reason scopes tools tool_choice tool_calls tool_call_id function
    type arguments parameters response_format json_schema schema structured_outputs regex logit_bias prompt input text_1
    text_2 tokens logprobs top_logprobs parallel_tool_calls
"""
KEYS = st.sampled_from(WORDS.split())
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["user", "sanbai", "system", "", "\0", "\ud800", "x" * 300, "../..", "thumb", "labeler", "admin"])
    | st.text(max_size=10)
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5))
BODIES = st.dictionaries(KEYS, VALUES, max_size=6) | VALUES
WRITES = sorted(route for route in LEAST_ROLE if route.startswith(("POST", "PATCH")) and "sign-out" not in route)
READS = sorted(route for route in LEAST_ROLE if route.startswith("GET") and "/static" not in route)
EASY = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture(scope="module")
def admin(site: Site) -> httpx2.Client:
    return site.program("admin")


def check(response: httpx2.Response) -> None:
    assert response.status_code < 500, (response.request.url, response.request.content, response.text)
    if response.status_code >= 400:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert "\n" not in error["message"]


@settings(max_examples=120, **EASY)  # type: ignore[arg-type]
@given(route=st.sampled_from(WRITES), body=BODIES)
def test_no_json_breaks_a_write(admin: httpx2.Client, route: str, body: Any) -> None:
    method, path = route.split()
    content = json.dumps(body)
    check(admin.request(method, place(path), content=content, headers={"Content-Type": "application/json"}))


@settings(max_examples=60, **EASY)  # type: ignore[arg-type]
@given(change=st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_no_change_of_one_field_breaks_a_completion(admin: httpx2.Client, change: dict[str, Any]) -> None:
    body = {"model": "sanbai", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1} | change
    if body.get("max_tokens") != 1:
        body["max_completion_tokens"] = 1
    content = json.dumps(body)
    check(admin.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"}))


@settings(max_examples=60, **EASY)  # type: ignore[arg-type]
@given(route=st.sampled_from(WRITES), content=st.binary(max_size=60))
def test_no_bytes_break_a_write(admin: httpx2.Client, route: str, content: bytes) -> None:
    method, path = route.split()
    check(admin.request(method, place(path), content=content, headers={"Content-Type": "application/json"}))


@settings(max_examples=60, **EASY)  # type: ignore[arg-type]
@given(
    route=st.sampled_from(READS),
    part=st.text(min_size=1, max_size=12) | st.sampled_from(["%00", "..", "%2e%2e", "9" * 30, "-1", "١"]),
    query=st.dictionaries(st.sampled_from(["limit", "before", "after", "n"]), st.text(max_size=8)),
)
def test_no_address_breaks_a_read(admin: httpx2.Client, route: str, part: str, query: dict[str, str]) -> None:
    from urllib.parse import quote

    _, path = route.split()
    spelled = part if part.startswith("%") else quote(part.encode("utf-8", "replace"), safe="")
    address = re.sub(r"\{[^}]*\}", lambda _: spelled, path)
    check(admin.get(address, params=query))


def test_a_deep_nest_and_a_long_body_are_refused(site: Site, admin: httpx2.Client) -> None:
    json_type = {"Content-Type": "application/json"}
    deep = admin.post("/v1/chat/completions", content="[" * 100_000, headers=json_type)
    assert deep.status_code == 400
    limit = site.app.state.house.settings.max_body_bytes
    long = admin.post("/api/label/answers", content=b" " * (limit + 1), headers=json_type)
    assert (long.status_code, long.json()["error"]["code"]) == (413, "too_large")


def test_a_body_that_is_not_json_is_refused(site: Site) -> None:
    client = site.client()
    form = client.post("/api/conversations", data={"a": "b"})
    assert (form.status_code, form.json()["error"]["code"]) == (415, "unsupported_media_type")
    misspelt = client.post("/api/me/consent", json={"granted": True, "for_ever": True})
    assert (misspelt.status_code, misspelt.json()["error"]["param"]) == (400, "for_ever")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/api/nothing", 404), ("PUT", "/api/me", 405), ("GET", "/nowhere", 404)]
)
def test_what_does_not_exist_is_told_in_the_envelope(site: Site, method: str, path: str, status: int) -> None:
    response = site.stranger().request(method, path)
    assert response.status_code == status
    check(response)


def test_no_message_enters_a_log(
    site: Site, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary-77c1"
    caplog.set_level(logging.DEBUG)
    client, program = site.client(), site.program()
    asked = ask(client, f"my secret is {canary}")
    read_events(client, asked["generations"][0]["id"])
    client.post(f"/api/conversations/{canary}/messages", json={"content": canary})
    client.patch(f"/api/conversations/{asked['conversation']}", json={"title": canary})
    client.post(f"/api/messages/{asked['message']['id']}/feedback", json={"value": 1, "comment": canary})
    client.post("/api/sign-in", json={"name": "x", "password": canary})
    chat = {"model": "sanbai", "messages": [{"role": "user", "content": canary}], "max_tokens": 2}
    program.post("/v1/chat/completions", json=chat)
    program.post("/v1/chat/completions", json=chat | {"n": canary})

    def breaking(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"failed on {canary}")

    monkeypatch.setattr(ContinuousEngine, "step", breaking)
    assert program.post("/v1/chat/completions", json=chat).status_code == 500
    monkeypatch.setattr("sanbai.feedback.conversations.insert_message", breaking_insert)
    assert (
        client.post(f"/api/conversations/{asked['conversation']}/messages", json={"content": canary}).status_code == 500
    )
    out, err = capfd.readouterr()
    for event in (" method=POST route=", "engine.failed", "request.failed"):
        assert event in caplog.text
    clients = ("httpx2", "httpcore2")  # this test's own requests, not the server's
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith(clients)]
    assert [line for line in [*logged, out, err] if canary in line] == []


def breaking_insert(_: Any, message: Any) -> None:
    raise RuntimeError(f"cannot insert {message.content}")
