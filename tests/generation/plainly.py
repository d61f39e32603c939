"""Answers written the slow way, as an oracle: the whole text is read anew for every token, and nothing is kept."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import accumulate

import torch
from torch import nn

from sanbai.generation.answering import Completion
from sanbai.generation.sampling import Sampling, draw_uniforms
from sanbai.model.encoder_decoder import EncoderDecoder


def slow_truncated(probabilities: Sequence[float], top_k: int, top_p: float) -> list[float]:
    """Top-k, then the smallest set of likeliest tokens that reaches top-p of what is left; ties with the last stay."""
    order = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])[:top_k]
    total, reached, last = sum(probabilities[token] for token in order), 0.0, 0.0
    for token in order:
        last = probabilities[token]
        reached += last
        if reached >= top_p * total:
            break
    return [probability if probability >= last else 0.0 for probability in probabilities]


@torch.no_grad()
def next_logits(model: nn.Module, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
    """Return what one plain pass over prompt and answer says of the next token."""
    if isinstance(model, EncoderDecoder):
        table = model(torch.tensor([list(prompt)]), torch.tensor([[model.config.start_token, *answer]]))
    else:
        table = model(torch.tensor([[*prompt, *answer]]))
    found: list[float] = table[0, -1].tolist()
    return found


def write_plainly(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    stop_ids: Collection[int],
) -> list[Completion]:
    """Return what `generate` should, of a model whose context is long enough for all that is asked."""
    return [_write(model, prompt, sampling, seed, stop_ids) for prompt, seed in zip(prompts, seeds, strict=True)]


def _write(
    model: nn.Module, prompt: Sequence[int], sampling: Sampling, seed: int, stop_ids: Collection[int]
) -> Completion:
    answer = Completion([], [], [], "length")
    for uniform in draw_uniforms([seed], sampling.max_new_tokens)[0].tolist():
        logits = next_logits(model, prompt, answer.tokens)
        heat = sampling.temperature or 1.0
        weights = [math.exp((logit - max(logits)) / heat) for logit in logits]
        probabilities = [weight / sum(weights) for weight in weights]
        if sampling.temperature == 0:
            kept = [float(logit == max(logits)) for logit in logits]
        else:
            kept = slow_truncated(probabilities, sampling.top_k, sampling.top_p)
        token = next(token for token, bound in enumerate(accumulate(kept)) if uniform * sum(kept) < bound)
        answer.tokens.append(token)
        answer.logprobs.append(math.log(probabilities[token]))
        answer.sampled_logprobs.append(math.log(kept[token] / sum(kept)))
        if token in stop_ids:
            return Completion(answer.tokens, answer.logprobs, answer.sampled_logprobs, "stop")
    return answer
