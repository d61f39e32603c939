"""What writes, a language model or an encoder-decoder, and what must be known of it before it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeVar

from sanbai.foundation.errors import DataError, ModelError
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer

Writer: TypeAlias = LanguageModel | EncoderDecoder
"""What writes: on from its prompt, or an answer to it."""
AnyWriter = TypeVar("AnyWriter", bound=LanguageModel | EncoderDecoder)


def decoder_of(model: Writer) -> LanguageModel:
    """Return what writes the tokens."""
    return model.decoder if isinstance(model, EncoderDecoder) else model


def check_prompts(model: Writer, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse a prompt that is empty, leaves no room for an answer, or is longer than an encoder reads.

    Raises:
        DataError: one line naming the first empty prompt.
        ModelError: one line naming the first that is too long.
    """
    limit = model.config.max_positions
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"prompt {index} has no token; it needs at least one")
        if isinstance(model, EncoderDecoder):
            if model.config.bounded and len(prompt) > limit:
                raise ModelError(f"prompt {index} has {len(prompt)} tokens and the encoder reads {limit}; shorten it")
        elif len(prompt) >= limit:
            raise ModelError(
                f"prompt {index} has {len(prompt)} tokens and the model's context {limit}; "
                "no room is left for an answer, so shorten it"
            )


def room_for(model: Writer, prompt: Sequence[int], new_tokens: int) -> int:
    """Return how many tokens an answer may have: those asked for, or what the model's context leaves."""
    if isinstance(model, LanguageModel):
        return min(new_tokens, model.config.max_positions - len(prompt))
    return min(new_tokens, model.config.max_positions) if model.config.bounded else new_tokens


def prompt_positions(model: Writer, prompt: Sequence[int]) -> int:
    """Return how many positions of the cache a prompt takes; one that an encoder reads leaves the start token's."""
    return 1 if isinstance(model, EncoderDecoder) else len(prompt)


def encode_text(tokenizer: Tokenizer, text: str, model: Writer) -> list[int]:
    """Return a text as a prompt: to be continued, behind the mark of a beginning; to be read, before that of an end."""
    mark, ids = tokenizer.reserved.end_of_text, tokenizer.encode(text)
    return [*ids, mark] if isinstance(model, EncoderDecoder) else [mark, *ids]
