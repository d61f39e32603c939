"""Whole answers to many prompts, and single streams, from engines that nobody else is using.

`generate` cuts its prompts into batches by the prompts alone, and gives each an engine of its own: so batches may be
answered in any thread or process, and of every n-th of them alone come the same numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sanbai.foundation.errors import UsageError
from sanbai.foundation.parallel import map_parts
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.precision import DecodingPrecision, decoding_copy
from sanbai.generation.request import Answer, NewToken, Request
from sanbai.generation.sampling import Sampling
from sanbai.generation.writer import Writer, check_prompts, prompt_positions, room_for

BLOCK_SIZE = 16
STEP_TOKENS = 2048
"""Nobody waits for a single token here, so prompts are read in large steps."""

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer."""

    tokens: list[int]
    """The token that stopped it included."""
    logprobs: list[float]
    """Of each token in nats, at the sampling temperature, before top-k and top-p."""
    sampled_logprobs: list[float]
    """The same under the distribution drawn from; equal to `logprobs` where top-k and top-p are off."""
    finish_reason: FinishReason
    """`stop`: a stop token was drawn; `length`: the limit, or the model's context, was reached."""


def generate(
    model: Writer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    stop_ids: Collection[int],
    batch_size: int = 64,
    precision: DecodingPrecision = "stored",
    on_batch: Callable[[int], None] | None = None,
    before_step: Callable[[], None] | None = None,
) -> list[Completion]:
    """Answer every prompt; the results are in the prompts' order.

    For K answers to a prompt, give it K times with K seeds: it is read once. A row's answer depends on its prompt and
    seed alone, up to rounding: sums over a batch of another shape may differ in their last bits.

    Args:
        model: left as it is.
        prompts: token ids, at least one each, shorter than the model's context; what the encoder reads, if it has one.
        sampling: the rule for all rows.
        seeds: one a prompt.
        stop_ids: tokens that end an answer.
        batch_size: rows at a time, in each thread.
        precision: of the weights that write; a copy is made once. Its log-probabilities differ from the stored
            weights'; `benchmarks/bench_model.py` says by how much.
        on_batch: called with the number of answers finished after each batch.
        before_step: called before each step of a batch, in its thread; what it raises ends the work.

    Raises:
        UsageError: a different number of seeds than prompts.
        DataError: an empty prompt, or an id beyond the vocabulary.
        ModelError: a prompt fills the model's context.
    """
    if len(seeds) != len(prompts):
        raise UsageError(f"{len(prompts)} prompts and {len(seeds)} seeds; each row needs its own")
    check_prompts(model, prompts)
    decoder, stops = decoding_copy(model, precision), frozenset(stop_ids)
    completions: dict[int, Completion] = {}

    def answer(rows: Sequence[int]) -> None:
        requests, places = _requests([prompts[row] for row in rows], sampling, [seeds[row] for row in rows], stops)
        engine = ContinuousEngine(decoder, _settings(model, requests))
        for of_prompt, answers in zip(places, answer_all(engine, requests, before_step=before_step), strict=True):
            completions.update((rows[place], _completion(each)) for place, each in zip(of_prompt, answers, strict=True))
        if on_batch is not None:
            on_batch(len(completions))

    map_parts(answer, batches_of(prompts, batch_size))
    return [completions[row] for row in range(len(prompts))]


def batches_of(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Return which prompts `generate` answers together; of every n-th of these batches alone it makes the same ones.

    Longest first: memory is tight at the start or not at all. Equal prompts stay together.
    """
    order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), tuple(prompts[row])))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def answer_all(
    engine: ContinuousEngine,
    requests: Sequence[Request],
    *,
    on_finished: Callable[[int], None] | None = None,
    before_step: Callable[[], None] | None = None,
) -> list[list[Answer]]:
    """Answer requests with an engine that nobody else is using; return each one's answers in the order of its seeds.

    Args:
        engine: idle.
        requests: any number; those that its queue has no room for wait here.
        on_finished: called with the number of answers finished after each step that finished one.
        before_step: called before each step; what it raises ends the work.

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
            if before_step is not None:
                before_step()
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


def _requests(
    prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int], stop_ids: frozenset[int]
) -> tuple[list[Request], list[list[int]]]:
    """Return one request for each different prompt, and at which places it was given."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(tuple(prompt), []).append(place)
    requests = [
        Request(prompt=prompt, sampling=sampling, seeds=[seeds[place] for place in at], stop_ids=stop_ids)
        for prompt, at in places.items()
    ]
    return requests, list(places.values())


def _settings(model: Writer, requests: Sequence[Request]) -> EngineSettings:
    """Return room for all of these at once; answers to one prompt share its full blocks."""
    num_blocks = 0
    for request in requests:
        read = prompt_positions(model, request.prompt)
        longest = read + room_for(model, request.prompt, request.sampling.max_new_tokens)
        shared = read // BLOCK_SIZE
        num_blocks += shared + len(request.seeds) * (-(-longest // BLOCK_SIZE) - shared)
    num_rows = sum(len(request.seeds) for request in requests)
    return EngineSettings(
        num_blocks=num_blocks,
        block_size=BLOCK_SIZE,
        max_rows=num_rows,
        step_tokens=max(STEP_TOKENS, 2 * num_rows),
        max_waiting=num_rows,
    )


def _completion(answer: Answer) -> Completion:
    reason: FinishReason = "stop" if answer.finish_reason == "stop" else "length"  # without a mask nothing fails
    return Completion(answer.tokens, answer.logprobs, answer.sampled_logprobs, reason)
