"""Log-probabilities of given responses: what the model would have thought of every token, without drawing any."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sanbai.foundation.errors import DataError
from sanbai.foundation.parallel import map_parts
from sanbai.generation.batch import pad_right
from sanbai.model.heads import LanguageModel
from sanbai.objectives.language import token_logprobs


@torch.no_grad()
def score(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    batch_size: int = 32,
) -> list[list[float]]:
    """Return the log-probability in nats of each response token after its prompt and the response before it.

    The same numbers as `Completion.logprobs` when the responses were generated at this temperature. Logits are computed
    at response positions only.

    Args:
        model: in the precision that is wanted; call under autocast for bfloat16.
        prompts: token ids, at least one each.
        responses: token ids, one response a prompt; may be empty.
        temperature: the logits are divided by it; above 0.
        batch_size: rows at a time, of like lengths.

    Raises:
        DataError: the lists differ in length, or a prompt is empty.
        ModelError: a sequence is longer than the model's context.
    """
    if len(prompts) != len(responses):
        raise DataError(f"{len(prompts)} prompts and {len(responses)} responses; each prompt needs one response")
    if any(len(prompt) == 0 for prompt in prompts):
        raise DataError("a prompt has no token; it needs at least one")
    device = model.head_weight.device
    by_length = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]) - len(responses[row]))
    result: list[list[float]] = [[] for _ in prompts]

    def score_batch(rows: Sequence[int]) -> None:
        batch = pad_right([[*prompts[row], *responses[row]] for row in rows])
        hidden_BTD = model.trunk(batch.tokens_BT.to(device), segments_BT=batch.segments_BT.to(device))
        places = [
            (index, len(prompts[row]) + offset)
            for index, row in enumerate(rows)
            for offset in range(len(responses[row]))
        ]
        if not places:
            return
        index_N, position_N = torch.tensor(places).T
        # The token at a position was predicted from the one before it.
        logits_NV = model.logits(hidden_BTD[index_N.to(device), position_N.to(device) - 1])
        target_N = batch.tokens_BT[index_N, position_N].to(device)
        logprobs = iter(token_logprobs(logits_NV, target_N, temperature=temperature).tolist())
        for row in rows:
            result[row] = [next(logprobs) for _ in responses[row]]

    map_parts(score_batch, [by_length[start : start + batch_size] for start in range(0, len(by_length), batch_size)])
    return result
