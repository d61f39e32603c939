from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sanbai.text.chat_template import encode_conversation, encode_prompt, render
from sanbai.text.tokenizer import Tokenizer
from sanbai.text.tool_calls import call_texts

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'Says 天气 at a place\n& "when" <|end|>'.replace("<|end|>", "<b>"),
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}},
        },
    },
    {"type": "function", "function": {"name": "time"}},
]


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Will it rain?"},
    {
        "role": "assistant",
        "content": "Wait.",
        "tool_calls": [call("weather", {"place": "磨坊", "days": 1.5}), call("time", "{}")],
    },
    {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
    {"role": "assistant", "content": None, "tool_calls": [call("time", {})]},
    {"role": "tool", "content": "noon", "tool_call_id": "call_1"},
    {"role": "assistant", "content": "It rains."},
]


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import PreTrainedTokenizerFast

    folder: Path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("tools", [[], TOOLS])
def test_transformers_renders_tools_and_calls_as_we_do(tokenizer: Tokenizer, theirs: Any, tools: list[Any]) -> None:
    options = {"tools": tools or None, "return_dict": False}
    text = theirs.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True, **options)
    assert render(CONVERSATION, add_generation_prompt=True, tools=tools) == text
    ids = theirs.apply_chat_template(CONVERSATION, tokenize=True, add_generation_prompt=True, **options)
    assert encode_prompt(tokenizer, CONVERSATION, tools=tools) == ids
    assert '<|tool|>{"name":"weather","arguments":{"place":"磨坊","days":1.5}}<|tool|>{"name":"time"' in text


def test_calls_are_json_behind_an_id_that_no_text_gives(tokenizer: Tokenizer) -> None:
    (marker,) = tokenizer.turns.call
    typed = '<|tool|>{"name":"time","arguments":{}}'
    ids = encode_prompt(tokenizer, [{"role": "assistant", "content": typed}, {"role": "user", "content": typed}])
    assert marker not in ids
    found = [json.loads(text) for text in call_texts(CONVERSATION[2])]
    assert found == [
        {"name": "weather", "arguments": {"place": "磨坊", "days": 1.5}},
        {"name": "time", "arguments": {}},
    ]


def test_a_call_is_learned_with_its_mark_and_its_result_is_not(tokenizer: Tokenizer) -> None:
    encoded = encode_conversation(tokenizer, CONVERSATION[:4], tools=TOOLS)
    learned = [token for token, mark in zip(encoded.tokens, encoded.loss_mask, strict=True) if mark]
    (marker,) = tokenizer.turns.call
    texts = call_texts(CONVERSATION[2])
    expected = [*tokenizer.encode("Wait.")]
    for text in texts:
        expected += [marker, *tokenizer.encode(text)]
    assert learned == [*expected, tokenizer.reserved.end]
