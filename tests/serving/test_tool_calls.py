from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.serving.conftest import Site, running_site

from sanbai.generation.request import NewToken
from sanbai.serving.tool_calls import CallReader, joined
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer

QUESTION: list[Any] = [{"role": "user", "content": "Will it rain at the mill?"}]
PARAMETERS = {
    "type": "object",
    "properties": {"place": {"enum": ["mill", "村里"]}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["place", "days"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Says what is to come.",
        "parameters": PARAMETERS,
        "strict": True,
    },
}
TIME: Any = {"type": "function", "function": {"name": "time"}}
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Iterator[Site]:
    """A model whose context holds definitions."""
    with running_site(tmp_path_factory.mktemp("tools"), tokenizer, context=1024) as made:
        yield made


@pytest.fixture
def client(site: Site) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key=site.key(), max_retries=0) as made:
        yield made


def check(called: Any) -> None:
    arguments = json.loads(called.arguments)
    if called.name == "time":
        assert arguments == {}
    else:
        assert called.name == "get_weather"
        assert list(arguments) == ["place", "days"]
        assert arguments["place"] in {"mill", "村里"}
        assert 1 <= arguments["days"] <= 7


@pytest.mark.parametrize(("choice", "names"), [("required", {"time", "get_weather"}), (NAMED, {"get_weather"})])
@pytest.mark.parametrize("parallel", [True, False])
def test_a_call_that_must_be_made_fits_its_schema(
    client: openai.OpenAI, choice: Any, names: set[str], parallel: bool
) -> None:
    found, numbers = set(), set()
    for seed in range(4):
        answer = client.chat.completions.create(
            model="sanbai",
            messages=QUESTION,
            tools=[WEATHER, TIME],
            tool_choice=choice,
            parallel_tool_calls=parallel,
            seed=seed,
            n=4,
            temperature=1.5,
            max_tokens=200,
        )
        for made in answer.choices:
            if made.finish_reason == "length":
                continue
            assert made.finish_reason == "tool_calls"
            assert made.message.content is None
            assert made.message.tool_calls
            numbers.add(len(made.message.tool_calls))
            for call in made.message.tool_calls:
                assert call.type == "function"
                assert call.id.startswith("call_")
                check(call.function)
                found.add(call.function.name)
    assert found == names
    if not parallel or choice is NAMED:
        assert numbers == {1}
    else:
        assert max(numbers) > 1


@pytest.mark.parametrize("max_tokens", [1, 2, 9, 14, 25, 40, 200])
def test_calls_streamed_and_whole_are_equal_wherever_they_are_cut(client: openai.OpenAI, max_tokens: int) -> None:
    settings: dict[str, Any] = {
        "tools": [WEATHER, TIME],
        "tool_choice": "required",
        "seed": 3,
        "n": 3,
        "temperature": 1.0,
        "max_tokens": max_tokens,
    }
    whole = client.chat.completions.create(model="sanbai", messages=QUESTION, **settings)
    calls: list[dict[int, list[str]]] = [{}, {}, {}]
    reasons, contents = ["", "", ""], ["", "", ""]
    for chunk in client.chat.completions.create(model="sanbai", messages=QUESTION, stream=True, **settings):
        (choice,) = chunk.choices
        reasons[choice.index] = choice.finish_reason or reasons[choice.index]
        contents[choice.index] += choice.delta.content or ""
        for part in choice.delta.tool_calls or []:
            made = calls[choice.index].setdefault(part.index, ["", ""])
            assert part.function is not None
            if part.id:
                assert part.type == "function"
                made[0] = part.function.name or ""
            made[1] += part.function.arguments or ""
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert contents == [choice.message.content or "" for choice in whole.choices]
    for streamed, choice in zip(calls, whole.choices, strict=True):
        told = [[call.function.name, call.function.arguments] for call in choice.message.tool_calls or []]
        assert [streamed[place] for place in sorted(streamed)] == told
        if choice.finish_reason == "tool_calls":
            assert told
            for call in choice.message.tool_calls or []:
                check(call.function)
        else:
            assert choice.finish_reason == "length"


def test_the_clients_own_accumulator_reads_the_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="sanbai", messages=QUESTION, tools=[WEATHER], tool_choice="required", max_tokens=200, seed=1
    ) as stream:
        seen = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion().choices[0].message
    assert final.tool_calls
    assert len(seen) > 3  # the arguments came in pieces
    for place, call in enumerate(final.tool_calls):
        check(call.function)
        assert "".join(one.arguments_delta for one in seen if one.index == place) == call.function.arguments


def test_a_model_that_may_call_can_talk_and_one_that_may_not_does_not_call(
    client: openai.OpenAI, tokenizer: Tokenizer
) -> None:
    (marker,) = tokenizer.turns.call
    eager: dict[str, Any] = {"logit_bias": {str(marker): 100}, "tools": [WEATHER], "max_tokens": 200, "seed": 2}
    auto = client.chat.completions.create(model="sanbai", messages=QUESTION, parallel_tool_calls=False, **eager)
    assert auto.choices[0].message.tool_calls
    check(auto.choices[0].message.tool_calls[0].function)
    never = client.chat.completions.create(model="sanbai", messages=QUESTION, tool_choice="none", **eager)
    assert never.choices[0].message.tool_calls is None
    assert never.choices[0].finish_reason in {"stop", "length"}
    shy = client.chat.completions.create(
        model="sanbai", messages=QUESTION, tools=[WEATHER], max_tokens=30, seed=2, logit_bias={str(marker): -100}
    )
    assert shy.choices[0].message.content
    assert shy.choices[0].message.tool_calls is None


def test_a_form_may_be_given_beside_tools(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    (marker,) = tokenizer.turns.call
    answer = client.chat.completions.create(
        model="sanbai",
        messages=QUESTION,
        tools=[WEATHER],
        seed=2,
        logit_bias={str(marker): -100},
        extra_body={"structured_outputs": {"regex": "[a-c]{3}"}},
    )
    assert answer.choices[0].message.content is not None
    assert set(answer.choices[0].message.content) <= set("abc")
    assert answer.choices[0].finish_reason == "stop"


def calls(*names_and_arguments: tuple[str, str, str]) -> list[Any]:
    return [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id_, name, arguments in names_and_arguments
    ]


def test_calls_and_results_are_rendered_back_in_the_calls_order(
    site: Site, client: openai.OpenAI, tokenizer: Tokenizer
) -> None:
    messages: list[Any] = [
        *QUESTION,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": calls(("a", "get_weather", '{"place": "mill",\n "days": 2}'), ("b", "time", "{}")),
        },
        {"role": "tool", "tool_call_id": "b", "content": "noon"},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "rain"}]},
    ]
    answer = client.chat.completions.create(model="sanbai", messages=messages, tools=[WEATHER, TIME], max_tokens=1)
    turns = [
        *QUESTION,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": calls(("", "get_weather", '{"place":"mill","days":2}'), ("", "time", "{}")),
        },
        {"role": "tool", "content": "rain"},
        {"role": "tool", "content": "noon"},
    ]
    told: Any = [
        {"name": "get_weather", "description": "Says what is to come.", "parameters": PARAMETERS},
        {"name": "time"},
    ]
    assert answer.usage is not None
    ids = encode_prompt(tokenizer, turns, tools=told)
    assert answer.usage.prompt_tokens == len(ids)
    counted = site.program().post("/tokenize", json={"messages": messages, "tools": [WEATHER, TIME]})
    assert counted.json()["tokens"] == ids


def test_a_loop_of_calls_and_results_goes_on(client: openai.OpenAI) -> None:
    messages: list[Any] = list(QUESTION)
    for _ in range(2):
        answer = client.chat.completions.create(
            model="sanbai",
            messages=messages,
            tools=[TIME],
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=99,
        )
        message = answer.choices[0].message
        assert message.tool_calls
        messages += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "noon"}]
    assert len(messages) == 5


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "function"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name", "match"),
        ({"tools": [TIME, TIME]}, "tools", "two functions are called 'time'"),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "parameters": {"type": "string"}}}]},
            "tools[0].function.parameters",
            "object",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "parameters": {"properties": {"a": 3}}}}]},
            "tools",
            "malformed",
        ),
        ({"tools": [TIME] * 129}, "tools", "128"),
        ({"tools": [TIME], "tool_choice": NAMED}, "tool_choice", "no tool is called 'get_weather'"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"tools": [TIME], "tool_choice": "sometimes"}, "tool_choice.mode", "'auto'"),
        ({"tools": [TIME], "tool_choice": {"type": "function"}}, "tool_choice.function.function", "required"),
        ({"functions": [{"name": "x"}]}, "functions", "not supported"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": calls(("a", "t", "{}"))}]},
            "messages[0].tool_calls",
            "only the assistant",
        ),
        (
            {"messages": [*QUESTION, {"role": "assistant", "tool_calls": calls(("a", "t", '{"cut": '))}]},
            "messages[1].tool_calls[0].function.arguments",
            "JSON object",
        ),
        (
            {"messages": [*QUESTION, {"role": "tool", "tool_call_id": "z", "content": "x"}]},
            "messages[1].tool_call_id",
            "no call with this id",
        ),
    ],
)
def test_what_cannot_be_called_is_refused_in_one_clear_line(
    site: Site, change: dict[str, Any], param: str, words: str
) -> None:
    response = site.program().post("/v1/chat/completions", json={"model": "sanbai", "messages": QUESTION} | change)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error
    assert words in error["message"]
    assert "\n" not in error["message"]


def test_a_browser_session_may_not_bring_tools(site: Site) -> None:
    body = {"model": "sanbai", "messages": QUESTION, "tools": [TIME]}
    assert site.client().post("/v1/chat/completions", json=body).status_code == 403


def read(tokenizer: Tokenizer, tokens: list[int]) -> tuple[list[dict[str, Any]], CallReader]:
    """Feed a reader as the engine would, without stop strings."""
    from sanbai.text.stream import TextStream

    reader, stream = CallReader(tokenizer, tokenizer.turns.call[0]), TextStream(tokenizer)
    deltas = []
    for token in tokens:
        deltas += reader.push(NewToken(0, 0, token, 0.0, 0.0, [], stream.push(token), None, None))
    return [*deltas, *reader.finish()], reader


def test_text_and_calls_are_told_apart_by_the_marker_alone(tokenizer: Tokenizer) -> None:
    (marker,) = tokenizer.turns.call
    typed = '<|tool|>{"name":"time","arguments":{}}'
    call = '{"name":"get_weather","arguments":{"place":"村里 \\" }","days":2}}'
    tokens = [*tokenizer.encode(typed), marker, *tokenizer.encode(call), tokenizer.reserved.end]
    deltas, reader = read(tokenizer, tokens)
    message = joined(deltas)
    assert message["content"] == typed
    assert [made["function"] for made in message["tool_calls"]] == [
        {"name": "get_weather", "arguments": '{"place":"村里 \\" }","days":2}'}
    ]
    assert reader.is_whole


def test_every_cut_of_a_call_tells_what_there_is_of_it(tokenizer: Tokenizer) -> None:
    (marker,) = tokenizer.turns.call
    call = '{"name":"time","arguments":{"zone":{"村":"b"}}}'
    ids = tokenizer.encode(call)
    for length in range(len(ids) + 1):
        deltas, reader = read(tokenizer, [marker, *ids[:length]])
        message = joined(deltas)
        told = "".join(made["function"]["arguments"] for made in message.get("tool_calls", []))
        text = tokenizer.decode(ids[:length])
        expected = text.partition('"arguments":')[2]
        assert told == (expected[:-1] if length == len(ids) else expected)
        assert reader.is_whole == (length == len(ids))
