"""Tools of a chat completion: what the model is told, what its answer may be, and what of it are calls.

`text/tool_calls.py` says how all of this stands in a prompt.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanbai.generation.grammar import Grammar
from sanbai.generation.request import NewToken, TokenMask
from sanbai.generation.tool_calls import CallRules, forbid
from sanbai.serving.engine import ServedModel
from sanbai.serving.openai_schema import ChatMessage, ChatRequest, NamedTool
from sanbai.serving.problems import Problem
from sanbai.text.chat_markup import AnyMessage
from sanbai.text.stream import TextStream
from sanbai.text.tokenizer import Tokenizer

_CALL = re.compile(r'\{"name":"([a-zA-Z0-9_-]{1,64})","arguments":')


def turns_of(messages: Sequence[ChatMessage]) -> list[AnyMessage]:
    """Return messages as the chat template reads them; the results of several calls in the calls' order.

    Raises:
        Problem: calls of another than the assistant, arguments that are no JSON object, or a result without its call.
    """
    turns: list[AnyMessage] = []
    expected: list[str] = []  # ids of the newest calls
    results: list[tuple[int, AnyMessage]] = []

    def take_results() -> None:
        turns.extend(turn for _, turn in sorted(results, key=lambda result: result[0]))
        results.clear()

    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        if message.role == "tool":
            id_ = message.tool_call_id
            if id_ is not None and id_ not in expected:
                raise _wrong(f"{where}.tool_call_id", "the assistant's message before has no call with this id")
            order = len(expected) if id_ is None else expected.index(id_)
            results.append((order, {"role": "tool", "content": message.text}))
            continue
        take_results()
        if message.tool_calls and message.role != "assistant":
            raise _wrong(f"{where}.tool_calls", f"a {message.role} calls nothing; only the assistant does")
        calls = message.tool_calls or []
        expected = [call.id for call in calls]
        said: dict[str, Any] = {"role": message.role, "content": message.text}
        if calls:
            said["tool_calls"] = [
                {
                    "function": {
                        "name": call.function.name,
                        "arguments": _arguments(call.function.arguments, where, number),
                    }
                }
                for number, call in enumerate(calls)
            ]
        turns.append(said)
    take_results()
    return turns


def _arguments(text: str, where: str, number: int) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _wrong(f"{where}.tool_calls[{number}].function.arguments", "wanted a JSON object, as a text")
    return found


@dataclass(frozen=True)
class Toolbox:
    """What one request lets the model call."""

    definitions: Sequence[Mapping[str, Any]]
    """As the prompt tells them."""
    schemas: Mapping[str, Mapping[str, Any]]
    """Of the arguments of the functions that may be called, by name."""
    must_call: bool
    parallel: bool

    @classmethod
    def of(cls, request: ChatRequest) -> Toolbox | None:
        """Return the tools of a request; None where it has none.

        Raises:
            Problem: two tools of one name, or a choice among tools that are not there.
        """
        functions = [tool.function for tool in request.tools or []]
        names = [function.name for function in functions]
        choice = request.tool_choice
        if twice := next((name for place, name in enumerate(names) if name in names[:place]), ""):
            raise _wrong("tools", f"two functions are called {twice!r}; give each a name of its own")
        if isinstance(choice, NamedTool) and choice.function.name not in names:
            raise _wrong("tool_choice", f"no tool is called {choice.function.name!r}; choose one of tools")
        if choice == "required" and not functions:
            raise _wrong("tool_choice", "a call is required and there are no tools; give some")
        if not functions:
            return None
        named = choice.function.name if isinstance(choice, NamedTool) else ""
        callable_ = [] if choice == "none" else [one for one in functions if named in {"", one.name}]
        return cls(
            definitions=[] if choice == "none" else [function.told() for function in functions],
            schemas={function.name: function.schema_of_arguments() for function in callable_},
            must_call=bool(named) or choice == "required",
            parallel=request.parallel_tool_calls is not False and not named,
        )

    def marker(self, served: ServedModel) -> int:
        """Return the id that opens a call.

        Raises:
            Problem: the model's chat template has no place for calls.
        """
        call = served.tokenizer.turns.call
        if len(call) != 1:
            raise _wrong("tools", "the model's chat template has no place for tool calls; leave them out")
        return call[0]

    def mask(self, served: ServedModel, calls: Grammar | None, text: Grammar | None) -> TokenMask:
        """Return what the answers may be.

        Args:
            served: the model.
            calls: the grammar of one call; None where nothing may be called.
            text: what form an answer without calls has, if it has one.
        """
        vocab_size = served.model.config.vocab_size
        if calls is None:
            return text.mask() if text else forbid(self.marker(served), vocab_size=vocab_size)
        rules = CallRules(
            marker=self.marker(served),
            stop_ids=served.stop_ids,
            vocab_size=vocab_size,
            calls=calls,
            text=text,
            must_call=self.must_call,
            parallel=self.parallel,
        )
        return rules.mask()


class CallReader:
    """One answer, token by token, as content and calls: OpenAI's deltas.

    Content grows by what the engine shows. A call's text is decoded from its own tokens; its arguments are passed on
    as they come, all but the last character, which may be the bracket that closes the call around them.
    """

    def __init__(self, tokenizer: Tokenizer, marker: int | None) -> None:
        """Begin.

        Args:
            tokenizer: of the model.
            marker: opens a call; None where there are no tools, and everything is content.
        """
        self._tokenizer, self._marker = tokenizer, marker
        self._tokens: list[int] = []
        self._num_shown = 0  # characters of content
        self._stream: TextStream | None = None  # of the call in the making
        self._text, self._num_told = "", 0  # the call so far; characters of it that were told, or read as its name
        self.num_calls = 0
        self.is_whole = True
        """Whether every call that was begun came to its end; known after `finish`."""

    def push(self, new: NewToken) -> list[dict[str, Any]]:
        """Return the deltas that a token makes."""
        self._tokens.append(new.token)
        if new.token == self._marker:
            return [*self._close(), *self._open()]
        if self._stream is None:
            self._num_shown += len(new.text)
            return [{"content": new.text}] if new.text else []
        self._text += self._stream.push(new.token)
        return self._tell(held_back=1)

    def finish(self) -> list[dict[str, Any]]:
        """Return the last deltas, after the last token."""
        return self._close()

    def _open(self) -> list[dict[str, Any]]:
        first, self._stream = self._stream is None, TextStream(self._tokenizer)
        self._text, self._num_told = "", 0
        # What the engine held back, as the beginning of a stop string say, was said before the call.
        rest = self._tokenizer.decode(self._tokens[:-1])[self._num_shown :] if first else ""
        return [{"content": rest}] if rest else []

    def _close(self) -> list[dict[str, Any]]:
        if self._stream is None:
            return []
        self._text += self._stream.finish()
        try:
            json.loads(self._text)
        except ValueError:
            self.is_whole = False
            return self._tell(held_back=0)
        return self._tell(held_back=1)

    def _tell(self, *, held_back: int) -> list[dict[str, Any]]:
        deltas = []
        if self._num_told == 0:
            opening = _CALL.match(self._text)
            if opening is None:
                return []
            self._num_told = opening.end()
            function = {"name": opening[1], "arguments": ""}
            called = {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
            deltas.append({"tool_calls": [{"index": self.num_calls, **called}]})
            self.num_calls += 1
        end = len(self._text) - held_back
        if end > self._num_told:
            arguments, self._num_told = self._text[self._num_told : end], end
            deltas.append({"tool_calls": [{"index": self.num_calls - 1, "function": {"arguments": arguments}}]})
        return deltas


def joined(deltas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the message that an answer's deltas add up to."""
    content = "".join(delta.get("content", "") for delta in deltas)
    calls: list[dict[str, Any]] = []
    for delta in deltas:
        for part in delta.get("tool_calls", ()):
            if "id" in part:
                calls.append({"id": part["id"], "type": "function", "function": dict(part["function"])})
            else:
                calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    return message | {"content": content or None, "tool_calls": calls} if calls else message


def finish_reason(reason: str, reader: CallReader) -> str:
    """Return OpenAI's word for how an answer with its calls ended: a call that was cut off is none."""
    return "tool_calls" if reason == "stop" and reader.num_calls and reader.is_whole else reason


def _wrong(param: str, message: str) -> Problem:
    return Problem(400, f"{param}: {message}", "invalid_value", param=param)
