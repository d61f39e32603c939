"""Tools in a conversation, as text: what may be called, and what was called.

Definitions are a system message of their own that opens the conversation, one JSON object a line. A call is a JSON
object within the assistant's message, behind the reserved id that opens a tool's message elsewhere:

    <|system|>Tools:
    {"name":"weather","description":"...","parameters":{...}}<|end|>
    <|user|>Will it rain at the mill?<|end|>
    <|assistant|>Let me see.<|tool|>{"name":"weather","arguments":{"place":"mill"}}<|end|>
    <|tool|>rain<|end|>

No text gives that id, so an assistant that repeats what somebody typed calls nothing. An answer may hold several calls;
their results follow in the same order. JSON stands without white space between its parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sanbai.text.chat_markup import AnyMessage

HEADING = "Tools:"


def compact_json(value: Any) -> str:
    """Return a value as JSON without white space, its keys in their order, characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def definitions_text(tools: Sequence[Mapping[str, Any]]) -> str:
    """Return the content of the message that defines tools, each as OpenAI's API has it, or its function alone."""
    return "\n".join([HEADING, *(compact_json(tool.get("function") or tool) for tool in tools)])


def call_texts(message: AnyMessage) -> list[str]:
    """Return the calls of a message as its `tool_calls` have them; arguments that are a text already stay as they are.

    Raises:
        KeyError: a call without function, name or arguments.
    """
    return [_call_text(call["function"]) for call in message.get("tool_calls") or ()]


def _call_text(called: Mapping[str, Any]) -> str:
    arguments = called["arguments"]
    said = arguments if isinstance(arguments, str) else compact_json(arguments)
    return f'{{"name":{compact_json(called["name"])},"arguments":{said}}}'
