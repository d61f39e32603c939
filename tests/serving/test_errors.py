"""What every error carries, and requests by their ids."""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
from tests.serving.conftest import Site, running_site
from tests.serving.test_openai_api import QUESTION

from sanbai.serving import server
from sanbai.serving.problems import Problem
from sanbai.text.tokenizer import Tokenizer

JSON = {"Content-Type": "application/json"}


def connect(site: Site) -> socket.socket:
    address = urlsplit(site.url)
    assert address.hostname
    assert address.port
    return socket.create_connection((address.hostname, address.port), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def check(response: httpx2.Response, status: int, code: str, *, retry: bool = False) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-should-retry"] == ("true" if retry else "false")
    assert re.fullmatch(r"req_[0-9a-f]{24}", response.headers["x-request-id"])


def test_every_kind_of_error_is_in_the_envelope(site: Site) -> None:
    program, stranger = site.program(), site.stranger()
    limit = site.app.state.house.settings.max_body_bytes
    path = "/v1/chat/completions"
    check(program.get("/v1/nothing"), 404, "not_found")
    check(program.post("/nowhere", json={}), 404, "not_found")
    check(program.get("/v1/models/none"), 404, "model_not_found")
    wrong = program.put(path, json={})
    check(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    check(program.post(path, content=b"{" + b" " * limit, headers=JSON), 413, "too_large")
    check(program.post(path, content=b"a=b", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
    check(program.post(path, content=b"{", headers=JSON), 400, "invalid_value")
    check(program.post(path, json={"model": "sanbai"}), 400, "missing_field")
    check(stranger.post(path, json={}), 401, "invalid_api_key")
    check(site.program(scopes=("api",)).post(path, json={}), 403, "forbidden")
    check(stranger.get("/health", headers={"Host": "example.org"}), 421, "wrong_host")


def test_what_may_be_tried_again_says_so_and_when() -> None:
    for status in (408, 429, 500, 503):
        headers = Problem(status, "x", "x").all_headers()
        assert headers["x-should-retry"] == "true"
        assert ("Retry-After" in headers) == (status in {429, 503})
    assert Problem(400, "x", "x").all_headers() == {"x-should-retry": "false"}


def test_bytes_that_are_no_request_get_the_envelope_too(site: Site) -> None:
    with connect(site) as connection:
        connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_a_request_keeps_the_id_that_it_brings_in_answer_log_and_error(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "sanbai.serving.routes")
    program = site.program()
    answer = program.get("/v1/models", headers={"x-request-id": "mine-1.a_B"})
    assert answer.headers["x-request-id"] == "mine-1.a_B"
    assert re.search(r"request method=GET route=/v1/models status=200 milliseconds=\d+ id=mine-1.a_B\n", caplog.text)
    for bad in ("a b", "x" * 129, "", "a\tb"):
        made = program.get("/v1/models", headers={"x-request-id": bad}).headers["x-request-id"]
        assert re.fullmatch(r"req_[0-9a-f]{24}", made)
    monkeypatch.setattr(type(site.app.state.house.engine), "served", property(lambda _: 1 / 0))
    failed = program.get("/v1/models", headers={"x-request-id": "mine-2"})
    assert failed.status_code == 500
    assert "mine-2" in failed.json()["error"]["message"]
    assert "request.failed id=mine-2" in caplog.text


def test_the_official_client_shows_the_id_of_a_request(site: Site) -> None:
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key=site.key(), max_retries=0) as client:
        answer = client.chat.completions.create(
            model="sanbai", messages=QUESTION, max_tokens=1, extra_headers={"X-Request-ID": "mine-3"}
        )
    assert answer._request_id == "mine-3"


@pytest.fixture
def strict(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    with running_site(tmp_path, tokenizer, body_seconds=0.5, max_requests=2) as made:
        yield made


def head(site: Site, key: str, length: int) -> bytes:
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: {urlsplit(site.url).netloc}",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_half_a_head_and_half_a_body_do_not_stay(strict: Site) -> None:
    with connect(strict) as silent, connect(strict) as halting, connect(strict) as slow:
        halting.sendall(b"GET /health HTT")
        slow.sendall(head(strict, strict.key(), 100) + b'{"model": ')
        assert read_all(silent) == b""
        assert read_all(halting) == b""
        told = read_all(slow)
    assert told.startswith(b"HTTP/1.1 408")
    assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["code"] == "timeout"
    assert strict.program().get("/v1/models").status_code == 200


def test_more_requests_than_can_be_held_are_refused_and_checks_are_answered(strict: Site) -> None:
    key, program = strict.key(), strict.program()
    with connect(strict) as one, connect(strict) as two:
        for connection in (one, two):
            connection.sendall(head(strict, key, 100))
        guard: Any = strict.app.middleware_stack
        while type(guard).__name__ != "Guard":
            guard = guard.app
        deadline = time.monotonic() + 10
        while guard._num_requests < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        refused, healthy = program.get("/v1/models"), program.get("/health")
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "2"
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
    assert healthy.status_code == 200


def test_a_client_that_reads_nothing_is_let_go(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STALLED_SECONDS", 0.3)
    with running_site(tmp_path, tokenizer, context=1024) as made:
        key, engine = made.key(), made.app.state.house.engine
        body = json.dumps(
            {"model": "sanbai", "messages": QUESTION, "n": 8, "max_tokens": 900, "stream": True, "logprobs": True,
             "top_logprobs": 20, "logit_bias": {str(id_): -100 for id_ in tokenizer.reserved.ends()}}
        ).encode()  # fmt: skip
        with connect(made) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(head(made, key, len(body)) + body)
            deadline = time.monotonic() + 120
            while not engine.num_running and time.monotonic() < deadline:
                time.sleep(0.01)
            asked = {"model": "sanbai", "messages": QUESTION, "max_tokens": 5}
            other = made.program().post("/v1/chat/completions", json=asked, timeout=120)
            assert other.status_code == 200
            while engine.num_running and time.monotonic() < deadline:
                time.sleep(0.01)
            assert engine.num_running == 0
            assert read_all(deaf).startswith(b"HTTP/1.1 200")
