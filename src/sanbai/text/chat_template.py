"""Conversations to tokens: the one template of training, generation and server.

    <|end_of_text|> ( <|role|> content <|end|> )*  [ <|assistant|> ]

Ids are built from pieces: reserved ids are inserted as ids, contents are encoded as text. A message can therefore say
anything without speaking for another role.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sanbai.foundation.errors import DataError, UsageError
from sanbai.text.chat_markup import Message, canonical_role
from sanbai.text.reserved import MARKERS
from sanbai.text.tokenizer import Tokenizer

#: A prompt holds at least <|end_of_text|>, <|role|>, one token, <|end|> and <|assistant|>.
SMALLEST_PROMPT = 5


@dataclass(frozen=True, slots=True)
class EncodedConversation:
    """Token ids and, one number a token, whether the token itself is to be learned (1) or only read (0)."""

    tokens: list[int]
    loss_mask: list[int]


def render(messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    """Return the conversation as text with markers: for eyes and for other programs, never to be encoded here.

    Raises:
        DataError: an unknown role.
    """
    turns = [MARKERS[canonical_role(turn["role"])] + turn["content"] + MARKERS["end"] for turn in messages]
    return MARKERS["end_of_text"] + "".join(turns) + (MARKERS["assistant"] if add_generation_prompt else "")


def encode_conversation(tokenizer: Tokenizer, messages: Sequence[Message]) -> EncodedConversation:
    """Return a whole conversation; what the assistant says, and its end of turn, is to be learned.

    The loss mask marks tokens, not positions that predict them: shift it with the targets.

    Raises:
        DataError: an unknown role.
    """
    tokens = [tokenizer.reserved.end_of_text]
    loss_mask = [0]
    for message in messages:
        turn = _encode_turn(tokenizer, message)
        learned = int(canonical_role(message["role"]) == "assistant")
        tokens += turn
        loss_mask += [0] + [learned] * (len(turn) - 1)
    return EncodedConversation(tokens, loss_mask)


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message], *, max_tokens: int | None = None) -> list[int]:
    """Return a conversation that waits for the assistant: it ends in <|assistant|>.

    When longer than `max_tokens`, the oldest messages go, whole; a system message that opens the conversation stays as
    long as it fits beside the last message. A last message that is itself too long loses its beginning, at a
    character's border.

    Args:
        tokenizer: encodes the contents.
        messages: oldest first, at least one.
        max_tokens: the limit, `SMALLEST_PROMPT` or more.

    Raises:
        DataError: no message, or an unknown role.
        UsageError: the limit is too small to hold any prompt.
    """
    if not messages:
        raise DataError("a prompt holds no message; wanted at least one")
    start, answer = [tokenizer.reserved.end_of_text], [tokenizer.reserved.assistant]
    turns = [_encode_turn(tokenizer, message) for message in messages]
    if max_tokens is None or sum(map(len, turns)) + 2 <= max_tokens:
        return start + [token for turn in turns for token in turn] + answer
    if max_tokens < SMALLEST_PROMPT:
        raise UsageError(f"a prompt of at most {max_tokens} tokens; the smallest is {SMALLEST_PROMPT}")

    space = max_tokens - 2
    *earlier, last = turns
    if len(last) > space:
        return start + _cut_left(tokenizer, last, space) + answer
    space -= len(last)
    opening: list[int] = []
    if earlier and canonical_role(messages[0]["role"]) == "system" and len(earlier[0]) <= space:
        opening = earlier.pop(0)
        space -= len(opening)
    kept = [last]
    for turn in reversed(earlier):
        if len(turn) > space:
            break
        kept.insert(0, turn)
        space -= len(turn)
    return start + opening + [token for turn in kept for token in turn] + answer


def _encode_turn(tokenizer: Tokenizer, message: Message) -> list[int]:
    role_id: int = getattr(tokenizer.reserved, canonical_role(message["role"]))
    return [role_id, *tokenizer.encode(message["content"]), tokenizer.reserved.end]


def _cut_left(tokenizer: Tokenizer, turn: list[int], limit: int) -> list[int]:
    """Drop the beginning of a turn's content so that the turn has at most `limit` tokens and no half character."""
    role_id, *content = turn
    first = len(content) - (limit - 1)
    while first < len(content) - 1 and _is_continuation(tokenizer.token_bytes(content[first])):
        first += 1
    return [role_id, *content[first:]]


def _is_continuation(token: bytes) -> bool:
    """Whether the bytes start inside a UTF-8 character."""
    return bool(token) and token[0] & 0xC0 == 0x80
