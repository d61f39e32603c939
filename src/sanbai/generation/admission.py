"""What a request must be for the continuous engine to take it."""

from __future__ import annotations

from collections.abc import Collection

from sanbai.foundation.errors import DataError, ResourceError, UnknownNameError, UsageError
from sanbai.generation.blocks import BlockPool
from sanbai.generation.request import Request
from sanbai.generation.writer import Writer, check_prompts, prompt_positions, room_for
from sanbai.model.encoder_decoder import EncoderDecoder


def check_request(
    request: Request, model: Writer, *, pool: BlockPool, adapters: Collection[str], has_tokenizer: bool
) -> None:
    """Refuse what could not be answered; the request's mask is not asked here.

    Raises:
        DataError: an empty prompt, or an id beyond the vocabulary.
        ModelError: the prompt fills the model's context, or is longer than an encoder reads.
        ResourceError: the cache is too small for this request alone.
        UnknownNameError: no adapter of the name asked for.
        UsageError: no seed; stop strings without a tokenizer; an encoder's text's log-probabilities.
    """
    vocab_size, encodes = model.config.vocab_size, isinstance(model, EncoderDecoder)
    check_prompts(model, [request.prompt])
    if wrong := [id_ for id_ in (*request.prompt, *request.shaping.logit_bias) if not 0 <= id_ < vocab_size]:
        raise DataError(f"token id {wrong[0]} is not among the model's 0 to {vocab_size - 1}")
    if request.adapter is not None and request.adapter not in adapters:
        raise UnknownNameError(f"no adapter {request.adapter}; there are: {', '.join(sorted(adapters)) or 'none'}")
    if not request.seeds:
        raise UsageError("a request without seeds asks for no answer; give one seed an answer")
    if not 0 <= request.top_logprobs <= vocab_size:
        raise UsageError(f"top_logprobs {request.top_logprobs}; wanted 0 to {vocab_size}")
    if any(request.stop_strings) and not has_tokenizer:
        raise UsageError("stop strings were given to an engine without a tokenizer; make it with one")
    if request.prompt_logprobs and encodes:
        raise UsageError("prompt_logprobs of a text that an encoder reads; it writes none, so ask without")
    room = room_for(model, request.prompt, request.sampling.max_new_tokens)
    longest = prompt_positions(model, request.prompt) + room - 1  # the last token is not read
    if (wanted := pool.blocks_for(longest)) > pool.num_blocks:
        raise ResourceError(
            f"prompt and answer may need {wanted} cache blocks and the engine has {pool.num_blocks}; lower "
            "max_new_tokens or give it more"
        )
