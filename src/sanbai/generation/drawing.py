"""From logits to tokens, every row by rules of its own.

A draw inverts the cumulative distribution at the row's uniform number, so a row's token is the same whatever the others
ask. A step that nobody needs (penalties, truncation, any draw at all) is left out.

Shapes: B rows, V vocabulary, A rows that something applies to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sanbai.generation.request import Shaping
from sanbai.generation.sampling import Sampling


class SampledTokens(NamedTuple):
    """One drawn token a row, with its log-probabilities in nats."""

    token_B: Tensor
    logprob_B: Tensor
    """Under softmax(logits / temperature), before top-k and top-p: what training computes. At temperature 0, of 1."""
    sampled_logprob_B: Tensor
    """Under the distribution that was drawn from; 0 at temperature 0, where nothing is left to chance."""


class Rules(NamedTuple):
    """Each row's own."""

    temperature_B1: Tensor
    """0 takes the likeliest token."""
    top_k_B1: Tensor
    top_p_B1: Tensor
    min_p_B1: Tensor
    all_greedy: bool
    truncated_A: Tensor
    """Rows with top-k, top-p or min-p."""


def collect_rules(rules: Sequence[tuple[Sampling, Shaping]], vocab_size: int, device: torch.device) -> Rules:
    """Return the rows' rules as tensors."""
    columns = [
        (sampling.heat, min(sampling.top_k, vocab_size), sampling.top_p, shaping.min_p) for sampling, shaping in rules
    ]
    truncated = [
        row for row, (heat, k, p, low) in enumerate(columns) if heat > 0 and (k < vocab_size or p < 1.0 or low > 0.0)
    ]
    table_4B1 = torch.tensor(columns, dtype=torch.float64, device=device).T.unsqueeze(-1)
    temperature_B1, top_k_B1, top_p_B1, min_p_B1 = table_4B1.unbind()
    return Rules(
        temperature_B1=temperature_B1,
        top_k_B1=top_k_B1.long(),
        top_p_B1=top_p_B1,
        min_p_B1=min_p_B1,
        all_greedy=not any(heat > 0 for heat, *_ in columns),
        truncated_A=torch.tensor(truncated, dtype=torch.int64, device=device),
    )


def draw(logits_BV: Tensor, shaped_BV: Tensor, uniform_B: Tensor, rules: Rules) -> SampledTokens:
    """Draw one token a row.

    Args:
        logits_BV: the model's; float32 or float64.
        shaped_BV: after penalties, biases and masks, which may be -inf but not everywhere; the same tensor where there
            are none.
        uniform_B: in [0, 1), at most 24 bits each.
        rules: the rows'.
    """
    heat_B1 = rules.temperature_B1.to(logits_BV.dtype)
    divisor_B1 = heat_B1.where(heat_B1 > 0, 1.0)
    token_B1, sampled_B1 = likeliest(shaped_BV).unsqueeze(-1), torch.zeros_like(divisor_B1)
    raw_BV = torch.log_softmax(logits_BV if rules.all_greedy else logits_BV / divisor_B1, dim=-1)
    if not rules.all_greedy:
        logprob_BV = raw_BV if shaped_BV is logits_BV else torch.log_softmax(shaped_BV / divisor_B1, dim=-1)
        cumulative_BV = _truncate_rows(logprob_BV.exp(), rules).double().cumsum(dim=-1)
        total_B1 = cumulative_BV[:, -1:]
        drawn_B1 = torch.searchsorted(cumulative_BV, uniform_B.double().unsqueeze(-1) * total_B1, right=True)
        token_B1 = torch.where(heat_B1 > 0, drawn_B1, token_B1)
        sampled_B1 = logprob_BV.gather(-1, token_B1) - total_B1.log().to(logprob_BV.dtype)
        sampled_B1 = sampled_B1.where(heat_B1 > 0, 0.0)
    logprob_B1 = raw_BV.gather(-1, token_B1)
    return SampledTokens(token_B1.squeeze(-1), logprob_B1.squeeze(-1), sampled_B1.squeeze(-1))


def likeliest(logits_BV: Tensor) -> Tensor:
    """Return each row's first greatest place; numpy's search takes a twentieth of torch's time on a CPU."""
    if logits_BV.device.type == "cpu":
        return torch.from_numpy(logits_BV.numpy().argmax(axis=1))
    return logits_BV.argmax(dim=-1)


def top_logprobs(logits_BV: Tensor, temperature_B1: Tensor, count: int) -> list[list[tuple[int, float]]]:
    """Return the likeliest tokens of each row with their log-probabilities, before anything but temperature."""
    heat_B1 = temperature_B1.to(logits_BV.dtype)
    best = torch.log_softmax(logits_BV / heat_B1.where(heat_B1 > 0, 1.0), dim=-1).topk(count, dim=-1)
    columns = (best.indices.tolist(), best.values.tolist())
    return [list(zip(tokens, values, strict=True)) for tokens, values in zip(*columns, strict=True)]


def bend(logits_AV: Tensor, seen_AV: Tensor, count_AV: Tensor, shapings: Sequence[Shaping]) -> Tensor:
    """Return logits with each row's penalties and biases.

    l' = l / r if l > 0 else l r, for tokens seen;  l'' = l' + bias - presence [count > 0] - frequency count

    Args:
        logits_AV: left as they are.
        seen_AV: whether prompt or answer holds the token.
        count_AV: how often the answer holds it.
        shapings: one a row.
    """
    numbers = [(each.repetition_penalty, each.presence_penalty, each.frequency_penalty) for each in shapings]
    table_3A1 = torch.tensor(numbers, dtype=logits_AV.dtype, device=logits_AV.device).T.unsqueeze(-1)
    repetition_A1, presence_A1, frequency_A1 = table_3A1.unbind()
    repeated_AV = torch.where(logits_AV > 0, logits_AV / repetition_A1, logits_AV * repetition_A1)
    bent_AV = torch.where(seen_AV, repeated_AV, logits_AV)
    bent_AV = bent_AV - presence_A1 * (count_AV > 0) - frequency_A1 * count_AV
    entries = [(row, token, bias) for row, each in enumerate(shapings) for token, bias in each.logit_bias.items()]
    if entries:
        rows, tokens, biases = (list(column) for column in zip(*entries, strict=True))
        bent_AV[rows, tokens] += torch.tensor(biases, dtype=bent_AV.dtype, device=bent_AV.device)
    return bent_AV


def _truncate_rows(probability_BV: Tensor, rules: Rules) -> Tensor:
    """Set to 0 what each row's rules exclude."""
    if not len(rules.truncated_A):
        return probability_BV
    chosen = rules.truncated_A
    truncated_AV = truncate_each(
        probability_BV[chosen],
        top_k_A1=rules.top_k_B1[chosen],
        top_p_A1=rules.top_p_B1[chosen],
        min_p_A1=rules.min_p_B1[chosen],
    )
    return probability_BV.index_copy(0, chosen, truncated_AV)


def truncate_each(probability_AV: Tensor, *, top_k_A1: Tensor, top_p_A1: Tensor, min_p_A1: Tensor) -> Tensor:
    """Set to 0 what each row's top-k, then top-p, and min-p exclude; tokens as likely as the last one kept are kept."""
    sorted_AV = descending(probability_AV)
    last_A1 = top_k_A1 - 1
    cumulative_AV = sorted_AV.double().cumsum(dim=-1)
    reached_AV = cumulative_AV >= top_p_A1 * cumulative_AV.gather(-1, last_A1)
    first_A1 = reached_AV.to(torch.uint8).argmax(dim=-1, keepdim=True)
    least_A1 = sorted_AV.gather(-1, torch.where(top_p_A1 < 1.0, first_A1, last_A1))
    least_A1 = torch.maximum(least_A1, (min_p_A1 * sorted_AV[:, :1]).to(least_A1.dtype))
    return probability_AV.where(probability_AV >= least_A1, 0.0)


def descending(x_BV: Tensor) -> Tensor:
    """Return each row sorted, largest first; on a CPU by numpy, whose vector sort is four times torch's speed."""
    if x_BV.device.type == "cpu":
        return torch.from_numpy(-np.sort(-x_BV.numpy(), axis=-1))
    return x_BV.sort(dim=-1, descending=True).values
