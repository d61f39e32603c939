"""Batched generation with a key-value cache: many prompts in, their answers out.

How it is fast on a CPU: prompts of like lengths go together, equal prompts are read once and their cache is copied
(K answers to one prompt cost one prefill), rows that have ended leave the batch, and a step does no work in Python that
grows with the number of rows.

How it is reproducible: each row's uniform numbers come from that row's seed alone, drawn before the first step.

An encoder-decoder reads its prompts with the encoder, once, and its decoder writes: the cache keeps the keys and values
of what was read beside those of what is written.

Shapes: B rows still running, N all rows of a batch, T positions, M new tokens at most, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from sanbai.foundation.device import Compute
from sanbai.foundation.errors import ModelError, UsageError
from sanbai.foundation.parallel import map_parts
from sanbai.foundation.seeds import torch_generator
from sanbai.generation.batch import pad_left
from sanbai.generation.sampling import Sampling, sample_tokens
from sanbai.model.cache import KeyValueCache
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel
from sanbai.model.transformer import Inputs
from sanbai.text.tokenizer import Tokenizer

COMPACT_BELOW = 0.8
"""Ended rows leave the batch when fewer than this share of it still runs; copying the cache costs about a step."""

FinishReason = Literal["stop", "length"]
Precision = Literal["stored", "bfloat16"]
Writer: TypeAlias = LanguageModel | EncoderDecoder
"""What writes: on from its prompt, or an answer to it."""
AnyWriter = TypeVar("AnyWriter", bound=LanguageModel | EncoderDecoder)


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
    precision: Precision = "stored",
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
        precision: `bfloat16` decodes with a copy of the weights cast once; faster from 16 rows on, slower for one.
            Its log-probabilities differ from the stored weights'; `benchmarks/bench_model.py` says by how much.
        on_batch: called with the number of answers finished after each batch.
        before_step: called before each token of a batch, in its thread; what it raises ends the work.

    Raises:
        UsageError: a different number of seeds than prompts.
        DataError: an empty prompt.
        ModelError: a prompt fills the model's context.
    """
    if len(seeds) != len(prompts):
        raise UsageError(f"{len(prompts)} prompts and {len(seeds)} seeds; each row needs its own")
    check_prompts(model, prompts)
    decoder = cast_for_decoding(model, precision)
    answers: dict[int, Completion] = {}

    def answer(rows: Sequence[int]) -> None:
        batch = _generate_batch(
            decoder, [prompts[row] for row in rows], sampling, [seeds[row] for row in rows], stop_ids, before_step
        )
        answers.update(zip(rows, batch, strict=True))
        if on_batch is not None:
            on_batch(len(answers))

    map_parts(answer, batches_of(prompts, batch_size))
    return [answers[row] for row in range(len(prompts))]


def batches_of(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Return which prompts `generate` answers together; of every n-th of these batches alone it makes the same ones.

    Longest first: memory is tight at the start or not at all. Equal prompts stay together.
    """
    order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), tuple(prompts[row])))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def decoding_precision(compute: Compute) -> Precision:
    """Return how a stage decodes: in bfloat16 where its products are."""
    return "bfloat16" if compute.precision == "bfloat16" else "stored"


def cast_for_decoding(model: AnyWriter, precision: Precision) -> AnyWriter:
    """Return the model itself, or a copy of it in bfloat16 that shares what is frozen and in bfloat16 already."""
    if precision == "stored":
        return model
    frozen = (each for each in model.parameters() if each.dtype == torch.bfloat16 and not each.requires_grad)
    copied = copy.deepcopy(model, {id(parameter): parameter for parameter in frozen})
    copied.to(torch.bfloat16)
    return copied


def check_prompts(model: Writer, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse a prompt that leaves no room for an answer, or that an encoder cannot read whole.

    Raises:
        ModelError: one line naming the first such prompt.
    """
    limit = model.config.max_positions
    for index, prompt in enumerate(prompts):
        if isinstance(model, EncoderDecoder):
            if model.config.bounded and len(prompt) > limit:
                raise ModelError(f"prompt {index} has {len(prompt)} tokens and the encoder reads {limit}; shorten it")
        elif len(prompt) >= limit:
            raise ModelError(
                f"prompt {index} has {len(prompt)} tokens and the model's context {limit}; "
                "no room is left for an answer, so shorten it"
            )


def encode_text(tokenizer: Tokenizer, text: str, model: Writer) -> list[int]:
    """Return a text as a prompt: to be continued, behind the mark of a beginning; to be read, before that of an end."""
    mark, ids = tokenizer.reserved.end_of_text, tokenizer.encode(text)
    return [*ids, mark] if isinstance(model, EncoderDecoder) else [mark, *ids]


def decoder_of(model: Writer) -> LanguageModel:
    """Return what writes the tokens."""
    return model.decoder if isinstance(model, EncoderDecoder) else model


def draw_uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Return `count` numbers in [0, 1) for each seed, of 24 bits, each row from its own generator."""
    return torch.stack([torch.rand(count, generator=torch_generator(seed, "sample")) for seed in seeds])


def room_for(model: Writer, prompt: Sequence[int], new_tokens: int) -> int:
    """Return how many tokens an answer may have: those asked for, or what the model's context leaves."""
    if isinstance(model, LanguageModel):
        return min(new_tokens, model.config.max_positions - len(prompt))
    return min(new_tokens, model.config.max_positions) if model.config.bounded else new_tokens


@torch.inference_mode()
def prefill(model: Writer, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[Tensor, KeyValueCache, Tensor]:
    """Read each different prompt once; return for each row the next token's logits and position, and the cache."""
    distinct: dict[tuple[int, ...], int] = {}
    row_of = [distinct.setdefault(tuple(prompt), len(distinct)) for prompt in prompts]
    batch = pad_left(list(distinct))
    decoder = decoder_of(model)
    reference = decoder.head_weight
    tokens_BT, segments_BT = batch.tokens_BT.to(reference.device), batch.segments_BT.to(reference.device)
    inputs: Inputs = {"segments_BT": segments_BT}
    if isinstance(model, EncoderDecoder):
        inputs = {"memory_BMD": model.encode(tokens_BT, segments_BT), "memory_segments_BM": segments_BT}
        tokens_BT = torch.full_like(tokens_BT[:, :1], model.config.start_token)
        segments_BT = torch.ones_like(tokens_BT)
    cache = KeyValueCache(
        model.config,
        num_rows=len(distinct),
        capacity=tokens_BT.shape[1] + new_tokens,
        dtype=reference.dtype,
        device=reference.device,
    )
    hidden_BTD = decoder.trunk(tokens_BT, cache=cache, **inputs)
    logits_BV = decoder.logits(hidden_BTD[:, -1])
    position_B = segments_BT.sum(dim=1)
    if len(distinct) < len(prompts):
        rows = torch.tensor(row_of, device=reference.device)
        logits_BV, position_B = logits_BV[rows], position_B[rows]
        cache.select(rows)
    return logits_BV, cache, position_B


@torch.inference_mode()
def _generate_batch(
    model: Writer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    stop_ids: Collection[int],
    before_step: Callable[[], None] | None = None,
) -> list[Completion]:
    decoder = decoder_of(model)
    device, exact = decoder.head_weight.device, torch.promote_types(decoder.head_weight.dtype, torch.float32)
    num_rows = len(prompts)
    limit_N = torch.tensor([room_for(model, prompt, sampling.max_new_tokens) for prompt in prompts], device=device)
    steps = int(limit_N.max())
    uniform_NM = draw_uniforms(seeds, steps).to(device)
    is_stop_V = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=device)
    is_stop_V[sorted(stop_ids)] = True

    token_NM = torch.zeros((num_rows, steps), dtype=torch.int64, device=device)
    logprob_NM = torch.zeros((num_rows, steps), dtype=exact, device=device)
    sampled_logprob_NM = torch.zeros_like(logprob_NM)
    length_N = torch.zeros(num_rows, dtype=torch.int64, device=device)

    logits_BV, cache, position_B = prefill(model, prompts, steps)
    running_B = torch.arange(num_rows, device=device)
    alive_B = torch.ones(num_rows, dtype=torch.bool, device=device)
    for step in range(steps):
        if before_step is not None:
            before_step()
        drawn = sample_tokens(logits_BV, uniform_NM[running_B, step], sampling)
        token_NM[running_B, step] = drawn.token_B
        logprob_NM[running_B, step] = drawn.logprob_B
        sampled_logprob_NM[running_B, step] = drawn.sampled_logprob_B
        length_N[running_B] += alive_B
        alive_B &= ~is_stop_V[drawn.token_B] & (length_N[running_B] < limit_N[running_B])
        num_alive = int(alive_B.sum())
        if num_alive == 0:
            break
        token_B = drawn.token_B
        if num_alive < COMPACT_BELOW * len(alive_B):
            kept = alive_B.nonzero().squeeze(-1)
            running_B, alive_B, token_B, position_B = running_B[kept], alive_B[kept], token_B[kept], position_B[kept]
            cache.select(kept)
        # A row that has ended but not left yet runs on unheeded; its position must stay one that exists.
        at_BT = position_B.clamp(max=model.config.max_positions - 1).unsqueeze(-1)
        logits_BV = decoder(token_B.unsqueeze(-1), positions_BT=at_BT, cache=cache)[:, -1]
        position_B = position_B + 1

    stopped_N = is_stop_V[token_NM.gather(1, length_N.unsqueeze(-1) - 1).squeeze(-1)].tolist()
    columns = (token_NM.tolist(), logprob_NM.tolist(), sampled_logprob_NM.tolist(), length_N.tolist(), stopped_N)
    return [
        Completion(tokens[:length], logprobs[:length], sampled[:length], "stop" if stopped else "length")
        for tokens, logprobs, sampled, length, stopped in zip(*columns, strict=True)
    ]
