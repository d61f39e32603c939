"""Whole answers and single streams from the continuous engine, as `engine.py` and `streaming.py` give them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

from sanbai.foundation.errors import UsageError
from sanbai.generation.continuous import ContinuousEngine, EngineSettings, decoding_copy
from sanbai.generation.engine import Completion, FinishReason, Precision, Writer, check_prompts, room_for
from sanbai.generation.request import Answer, NewToken, Request
from sanbai.generation.sampling import Sampling
from sanbai.model.encoder_decoder import EncoderDecoder

BLOCK_SIZE = 16
STEP_TOKENS = 2048
#: Nobody waits for a single token here, so prompts are read in large steps.


def answer_all(
    engine: ContinuousEngine, requests: Sequence[Request], *, on_finished: Callable[[int], None] | None = None
) -> list[list[Answer]]:
    """Answer requests with an engine that nobody else is using; return each one's answers in the order of its seeds.

    Args:
        engine: idle.
        requests: any number; those that its queue has no room for wait here.
        on_finished: called with the number of answers finished after each step that finished one.

    Raises:
        SanbaiError: as `ContinuousEngine.submit`; what was begun is cancelled.
    """
    waiting = deque(enumerate(requests))
    answers = [[Answer() for _ in request.seeds] for request in requests]
    place_of: dict[int, int] = {}
    finished = 0
    try:
        while waiting or engine.busy:
            while waiting and engine.num_waiting < engine.settings.max_waiting:
                place, request = waiting.popleft()
                place_of[engine.submit(request)] = place
            ended = 0
            for new in engine.step():
                answers[place_of[new.request]][new.answer].add(new)
                ended += new.finish_reason is not None
            finished += ended
            if ended and on_finished is not None:
                on_finished(finished)
    finally:
        for number in place_of:
            engine.cancel(number)
    return answers


def stream_answer(engine: ContinuousEngine, request: Request) -> Iterator[NewToken]:
    """Yield one request's tokens from an engine that nobody else is using; closing the iterator frees its blocks."""
    number = engine.submit(request)
    try:
        while engine.busy:
            yield from engine.step()
    finally:
        engine.cancel(number)


def generate_continuously(
    model: Writer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    stop_ids: Collection[int],
    batch_size: int = 64,
    precision: Precision = "stored",
    on_batch: Callable[[int], None] | None = None,
) -> list[Completion]:
    """Answer every prompt as `generate` does, under the same arguments; equal prompts are read once.

    Args:
        model: left as it is.
        prompts: token ids, at least one each, shorter than the model's context.
        sampling: the rule for all.
        seeds: one a prompt.
        stop_ids: tokens that end an answer.
        batch_size: answers in the making at a time.
        precision: as in `generate`.
        on_batch: called with the number of answers finished after each step that finished one.

    Raises:
        UsageError: a different number of seeds than prompts.
        DataError: an empty prompt.
        ModelError: a prompt fills the model's context.
    """
    if len(seeds) != len(prompts):
        raise UsageError(f"{len(prompts)} prompts and {len(seeds)} seeds; each row needs its own")
    if not prompts:
        return []
    check_prompts(model, prompts)
    places: dict[tuple[int, ...], list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(tuple(prompt), []).append(place)
    # Longest first: the last step's batch is then of short answers' prompts, and memory is tight at the start or never.
    ordered = sorted(places, key=lambda prompt: -len(prompt))
    before = 0 if isinstance(model, EncoderDecoder) else 1  # what an encoder reads takes no blocks
    longest = max(before * len(prompt) + room_for(model, prompt, sampling.max_new_tokens) for prompt in ordered)
    settings = EngineSettings(
        num_blocks=batch_size * -(-longest // BLOCK_SIZE),
        block_size=BLOCK_SIZE,
        max_rows=batch_size,
        step_tokens=max(STEP_TOKENS, 2 * batch_size),
    )
    engine = ContinuousEngine(decoding_copy(model, precision), settings)
    requests = [
        Request(
            prompt=prompt,
            sampling=sampling,
            seeds=[seeds[place] for place in places[prompt]],
            stop_ids=frozenset(stop_ids),
        )
        for prompt in ordered
    ]
    completions: dict[int, Completion] = {}
    for prompt, answers in zip(ordered, answer_all(engine, requests, on_finished=on_batch), strict=True):
        for place, answer in zip(places[prompt], answers, strict=True):
            reason: FinishReason = (
                "stop" if answer.finish_reason == "stop" else "length"
            )  # without a mask nothing fails
            completions[place] = Completion(answer.tokens, answer.logprobs, answer.sampled_logprobs, reason)
    return [completions[place] for place in range(len(prompts))]
