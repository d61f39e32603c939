"""Conversations to tokens: the one template of training, generation and server.

    <|end_of_text|> ( <|role|> content <|end|> )*  [ <|assistant|> ]

Where tools may be called, a content also holds calls (`tool_calls.py`).

Ids are built from pieces: reserved ids are inserted as ids, contents are encoded as text. A message can therefore say
anything without speaking for another role. A tokenizer from elsewhere has pieces of its own (`turns.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanbai.foundation.errors import DataError, UsageError
from sanbai.text.chat_markup import AnyMessage, canonical_role
from sanbai.text.reserved import MARKERS
from sanbai.text.tokenizer import Tokenizer
from sanbai.text.tool_calls import call_texts, definitions_text
from sanbai.text.turns import Ids

#: A prompt in our template holds at least <|end_of_text|>, <|role|>, one token, <|end|> and <|assistant|>.
SMALLEST_PROMPT = 5

#: Definitions of tools as OpenAI's API has them.
Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class EncodedConversation:
    """Token ids and, one number a token, whether the token itself is to be learned (1) or only read (0)."""

    tokens: list[int]
    loss_mask: list[int]


def render(messages: Sequence[AnyMessage], *, add_generation_prompt: bool, tools: Tools = ()) -> str:
    """Return the conversation in our template as text: for eyes and for other programs, never to be encoded here.

    Raises:
        DataError: an unknown role.
    """
    turns = [
        MARKERS[canonical_role(turn["role"])]
        + "".join([turn["content"] or "", *(MARKERS["tool"] + call for call in call_texts(turn))])
        + MARKERS["end"]
        for turn in _with_tools(messages, tools)
    ]
    return MARKERS["end_of_text"] + "".join(turns) + (MARKERS["assistant"] if add_generation_prompt else "")


def encode_conversation(
    tokenizer: Tokenizer, messages: Sequence[AnyMessage], *, tools: Tools = ()
) -> EncodedConversation:
    """Return a whole conversation; what the assistant says and calls, and its end of turn, is to be learned.

    The loss mask marks tokens, not positions that predict them: shift it with the targets.

    Raises:
        DataError: an unknown role, or a tool call where the template has no place for one.
    """
    messages = _with_tools(messages, tools)
    tokens = list(tokenizer.turns.start(messages[0]["role"])) if messages else list(tokenizer.turns.opening)
    loss_mask = [0] * len(tokens)
    for message in messages:
        before, content, after = _encode_turn(tokenizer, message)
        learned = int(canonical_role(message["role"]) == "assistant")
        # A template may go on after the end of a turn, with a line break say: that is not the assistant's.
        said = len(content) + (after.index(tokenizer.reserved.end) + 1 if learned else len(after))
        tokens += [*before, *content, *after]
        loss_mask += [0] * len(before) + [learned] * said + [0] * (len(content) + len(after) - said)
    return EncodedConversation(tokens, loss_mask)


def encode_prompt(
    tokenizer: Tokenizer, messages: Sequence[AnyMessage], *, tools: Tools = (), max_tokens: int | None = None
) -> list[int]:
    """Return a conversation that waits for the assistant: it ends in <|assistant|>.

    When longer than `max_tokens`, the oldest messages go, whole; a system message that opens the conversation stays as
    long as it fits beside the last message. A last message that is itself too long loses its beginning, at a
    character's border.

    Args:
        tokenizer: encodes the contents.
        messages: oldest first, at least one.
        tools: that may be called; they open the conversation as a system message.
        max_tokens: the limit, `SMALLEST_PROMPT` or more.

    Raises:
        DataError: no message, an unknown role, or a tool call where the template has no place for one.
        UsageError: the limit is too small to hold any prompt.
    """
    if not messages:
        raise DataError("a prompt holds no message; wanted at least one")
    messages = _with_tools(messages, tools)
    form = tokenizer.turns
    encoded = [_encode_turn(tokenizer, message) for message in messages]
    turns = [[*before, *content, *after] for before, content, after in encoded]
    roles = [canonical_role(message["role"]) for message in messages]
    whole = [*form.start(roles[0]), *(token for turn in turns for token in turn), *form.answer]
    if max_tokens is None or len(whole) <= max_tokens:
        return whole
    if max_tokens < form.smallest_prompt:
        raise UsageError(f"a prompt of at most {max_tokens} tokens; the smallest is {form.smallest_prompt}")

    space = max_tokens - form.longest_start - len(form.answer)
    if len(turns[-1]) > space:
        return [*form.start(roles[-1]), *_cut_left(tokenizer, *encoded[-1], space), *form.answer]
    space -= len(turns[-1])
    opening = 0
    if len(turns) > 1 and roles[0] == "system" and len(turns[0]) <= space:
        opening = 1
        space -= len(turns[0])
    first = len(turns) - 1
    while first > opening and len(turns[first - 1]) <= space:
        first -= 1
        space -= len(turns[first])
    kept = [*range(opening), *range(first, len(turns))]
    return [*form.start(roles[kept[0]]), *(token for turn in kept for token in turns[turn]), *form.answer]


def prompt_room(context: int, max_new_tokens: int, *, field: str, smallest: int = SMALLEST_PROMPT) -> int:
    """Return how many tokens a prompt may have where its answer is to have its full length.

    Args:
        context: positions of the model.
        max_new_tokens: of the longest answer.
        field: of the recipe, which says so.
        smallest: prompt there is; another template's is its `smallest_prompt`.

    Raises:
        UsageError: no prompt fits beside such an answer.
    """
    room = context - max_new_tokens
    if room < smallest:
        raise UsageError(
            f"{field} {max_new_tokens} leaves {max(0, room)} of the model's {context} positions to a prompt, which "
            f"takes {smallest} or more; lower it, or take a model with a longer context"
        )
    return room


def _with_tools(messages: Sequence[AnyMessage], tools: Tools) -> Sequence[AnyMessage]:
    return [{"role": "system", "content": definitions_text(tools)}, *messages] if tools else messages


def _encode_turn(tokenizer: Tokenizer, message: AnyMessage) -> tuple[Ids, list[int], Ids]:
    """Return what stands before a content, the content with its calls, and what stands after it."""
    before, after = tokenizer.turns.around(message["role"])
    content, calls = tokenizer.encode(message["content"] or ""), call_texts(message)
    if calls and not tokenizer.turns.call:
        raise DataError("the model's chat template has no place for tool calls; leave them out")
    for call in calls:
        content += [*tokenizer.turns.call, *tokenizer.encode(call)]
    return before, content, after


def _cut_left(tokenizer: Tokenizer, before: Ids, content: list[int], after: Ids, limit: int) -> list[int]:
    """Drop the beginning of a turn's content so that the turn has at most `limit` tokens and no half character."""
    first = len(content) - (limit - len(before) - len(after))
    while first < len(content) and _is_continuation(tokenizer.token_bytes(content[first])):
        first += 1
    return [*before, *content[first:], *after]


def _is_continuation(token: bytes) -> bool:
    """Whether the bytes start inside a UTF-8 character."""
    return bool(token) and token[0] & 0xC0 == 0x80
