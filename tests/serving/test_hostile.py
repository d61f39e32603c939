"""What nobody should send: served, refused or limited, and everyone else goes on being served."""

from __future__ import annotations

import json
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.serving.conftest import Site, running_site

from sanbai.serving import grammars
from sanbai.text.reserved import MARKERS
from sanbai.text.tokenizer import Tokenizer

CHAT: dict[str, Any] = {"model": "sanbai", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
JSON = {"Content-Type": "application/json"}
MEGABYTES = 3_000_000


@pytest.fixture
def program(site: Site) -> httpx2.Client:
    return site.program()


def refusal(response: httpx2.Response) -> tuple[int, str]:
    """Return a refusal's status and code; it is in the envelope, and its message is short."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) < 2000
    return response.status_code, error["code"]


def served(site: Site) -> None:
    """Somebody else is."""
    assert site.program().post("/v1/chat/completions", json=CHAT).status_code == 200


@pytest.mark.parametrize("character", ["a", " ", "村", "😀", "\n", "a b"])
def test_megabytes_of_prompt_are_refused_before_they_are_cut_into_tokens(
    site: Site, program: httpx2.Client, character: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = Tokenizer.encode

    def noting(self: Tokenizer, text: str) -> list[int]:
        encoded.append(len(text))
        return encode(self, text)

    monkeypatch.setattr(Tokenizer, "encode", noting)
    text, too_long = character * (MEGABYTES // len(character.encode())), (400, "context_length_exceeded")
    messages = [{"role": "user", "content": text}]
    assert refusal(program.post("/v1/chat/completions", json=CHAT | {"messages": messages})) == too_long
    assert refusal(program.post("/v1/completions", json={"model": "sanbai", "prompt": [text, "x"]})) == too_long
    assert refusal(program.post("/v1/embeddings", json={"model": "sanbai", "input": text})) == too_long
    assert sum(encoded) == 0
    served(site)


def test_megabytes_of_ids_and_of_text_for_the_tokenizer(site: Site, program: httpx2.Client) -> None:
    ids = {"model": "sanbai", "prompt": [5] * 500_000}
    assert refusal(program.post("/v1/completions", json=ids)) == (400, "context_length_exceeded")
    text = "Anna bakes bread. " * 20_000
    told = program.post("/tokenize", json={"prompt": text})
    assert program.post("/detokenize", json={"tokens": told.json()["tokens"]}).json()["prompt"] == text
    served(site)


@pytest.mark.parametrize("escape", ["\\ud800", "\\udfff\\ud800", "a\\udc00b"])
def test_half_a_character_is_refused_wherever_it_stands(program: httpx2.Client, escape: str) -> None:
    bodies = [
        f'{{"model": "sanbai", "messages": [{{"role": "user", "content": "{escape}"}}]}}',
        f'{{"model": "{escape}", "messages": [{{"role": "user", "content": "x"}}]}}',
        f'{{"model": "sanbai", "messages": [{{"role": "user", "content": "x"}}], "stop": "{escape}"}}',
        f'{{"{escape}": 1, "model": "sanbai", "messages": [{{"role": "user", "content": "x"}}]}}',
    ]
    for body in bodies:
        response = program.post("/v1/chat/completions", content=body, headers=JSON)
        assert refusal(response) == (400, "invalid_value")
    response = program.post("/tokenize", content=f'{{"prompt": "{escape}"}}', headers=JSON)
    assert refusal(response) == (400, "invalid_value")


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


@pytest.mark.parametrize("depth", [60, 150, 2000])
def test_deep_json_and_deep_schemas_do_not_break(site: Site, program: httpx2.Client, depth: int) -> None:
    text = '{"model": "sanbai", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4, "x": '
    deep = program.post("/v1/chat/completions", content=text + "[" * depth + "]" * depth + "}", headers=JSON)
    assert deep.status_code in {200, 400}
    schema = '{"type": "object", "properties": {"a": ' * depth + "{}" + "}}" * depth
    form = (
        text[:-5]
        + '"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": '
        + schema
        + "}}}"
    )
    assert program.post("/v1/chat/completions", content=form, headers=JSON).status_code in {200, 400}
    tool = text[:-5] + '"tools": [{"type": "function", "function": {"name": "x", "parameters": ' + schema + "}}]}"
    assert program.post("/v1/chat/completions", content=tool, headers=JSON).status_code in {200, 400}
    served(site)


@pytest.mark.parametrize(
    "change",
    [
        {"stop": [str(number) for number in range(10_000)]},
        {"stop": "x" * 1_000_000},
        {"n": 10**9},
        {"n": -1},
        {"max_tokens": 10**30},
        {"seed": 10**30},
        {"top_logprobs": 10**9, "logprobs": True},
        {"logit_bias": {str(number): 1 for number in range(1000)}},
        {"tools": [{"type": "function", "function": {"name": f"f{number}"}} for number in range(10_000)]},
        {"messages": [{"role": "user", "content": "x"}] * 100_000},
        {"structured_outputs": {"regex": "a" * 100_000}},
        {"temperature": 1e308},
    ],
)
def test_numbers_and_lists_beyond_reason_are_refused(program: httpx2.Client, change: dict[str, Any]) -> None:
    assert refusal(program.post("/v1/chat/completions", json=CHAT | change)) == (400, "invalid_value")


@pytest.mark.parametrize("key", ["1\n2", "\x00", "\ud800", "\u2028", "x" * 100_000])
def test_a_field_that_somebody_made_up_is_named_in_one_short_line(program: httpx2.Client, key: str) -> None:
    for change in ({"logit_bias": {key: 1}}, {"metadata": {key: 1}}, {key: 1}):
        body = json.dumps(CHAT | change)  # in ASCII, so that lone surrogates come too
        response = program.post("/v1/chat/completions", content=body, headers=JSON)
        if "logit_bias" in change:
            assert refusal(response) == (400, "invalid_value")
        if response.status_code != 200:
            error = response.json()["error"]
            assert error["message"].isprintable()
            assert max(len(error["message"]), len(error["param"] or "")) < 300


REGEXES = [
    "((a|a)*){1000}",
    "((((a{1,100}){1,100}){1,100}){1,100})",
    "(.*a){50}.{2000}",
    "(.*)(.*)(.*)(.*)(.*)(.*)(.*)[^x]{500}y",
    r"(\w{1,50}\s){1,200}",
    "(" * 20_000 + "a" + ")" * 20_000,
    "(?=a)b",
    "[",
    "",
]
SCHEMAS: list[Any] = [
    {"$ref": "#"},
    {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    {"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {"pattern": ".*a.*b"}}} for j in range(10)]} for i in range(8)]},
    {"type": "string", "pattern": "^(.*a){30}.{1000}$", "minLength": 500, "maxLength": 10_000},
    {"type": "integer", "multipleOf": 99_999_999, "minimum": 1, "maximum": 10**18},
    {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9}},
    {"enum": [f"x{number}" for number in range(5000)]},
    {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(1000)}},
    nested(150),
]


@pytest.mark.parametrize("place", range(len(REGEXES)))
def test_catastrophic_expressions_are_served_or_refused(site: Site, program: httpx2.Client, place: int) -> None:
    asked = CHAT | {"structured_outputs": {"regex": REGEXES[place]}}
    answer = program.post("/v1/chat/completions", json=asked)
    assert answer.status_code in {200, 400}, answer.text
    served(site)


@pytest.mark.parametrize("place", range(len(SCHEMAS)))
def test_catastrophic_schemas_are_served_or_refused(site: Site, program: httpx2.Client, place: int) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMAS[place]}}
    answer = program.post("/v1/chat/completions", json=CHAT | {"response_format": form})
    assert answer.status_code in {200, 400}, answer.text
    served(site)


def test_a_form_that_takes_too_long_to_read_is_refused_and_holds_up_nobody(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    of_regex = grammars.Grammar.of_regex

    def endless(expression: str, tokenizer: Any) -> Any:
        if expression == "endless":
            go_on.wait(60)
        return of_regex(expression, tokenizer)

    monkeypatch.setattr(grammars.Grammar, "of_regex", endless)
    monkeypatch.setattr(grammars, "COMPILE_SECONDS", 0.3)
    monkeypatch.setattr(grammars, "MOST_PENDING", 3)
    answers: list[httpx2.Response] = []

    def ask() -> None:
        asked = CHAT | {"structured_outputs": {"regex": "endless"}}
        answers.append(site.program().post("/v1/chat/completions", json=asked))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    try:
        for thread in threads:
            thread.start()
        served(site)
        for thread in threads:
            thread.join()
    finally:
        go_on.set()
    assert {answer.status_code for answer in answers} == {400, 429}
    assert all("within 0.3 seconds" in answer.text for answer in answers if answer.status_code == 400)
    served(site)


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(before[1], 8192)), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_thousand_connections_that_say_nothing_hold_up_nobody(
    tmp_path: Path, tokenizer: Tokenizer, many_files: None
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2500:
        pytest.skip("this machine allows no two ends of a thousand connections")
    with running_site(tmp_path, tokenizer) as made:
        address = urlsplit(made.url)
        assert address.hostname
        assert address.port
        silent = [socket.create_connection((address.hostname, address.port)) for _ in range(1000)]
        try:
            for place, connection in enumerate(silent):
                connection.sendall(b"GET /health HTTP/1.1\r\nHost"[: place % 28])  # half of a head
            for _ in range(3):
                served(made)
        finally:
            for connection in silent:
                connection.close()
        served(made)


def test_markers_stay_text_in_every_place_that_a_program_fills(site: Site, tokenizer: Tokenizer) -> None:
    typed = "".join(MARKERS.values())
    call = {"id": typed, "function": {"name": "x", "arguments": json.dumps({typed: typed})}}
    body: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": typed},
            {"role": "user", "content": [{"type": "text", "text": typed}]},
            {"role": "assistant", "content": typed, "tool_calls": [call]},
            {"role": "tool", "content": typed, "tool_call_id": typed},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "x",
                    "description": typed,
                    "parameters": {"properties": {typed: {"enum": [typed]}}},
                },
            }
        ],
    }
    tokens = site.program().post("/tokenize", json=body).json()["tokens"]
    turns, end = tokenizer.turns, tokenizer.reserved.end
    expected = [*turns.opening]
    for role in ("system", "system", "user"):  # definitions are the first system message
        expected += [*turns.before[role], end]
    expected += [*turns.before["assistant"], *turns.call, end, *turns.before["tool"], end, *turns.answer]
    assert [token for token in tokens if token in tokenizer.reserved_ids] == expected
    assert tokenizer.decode(tokens).count(typed) == 9
