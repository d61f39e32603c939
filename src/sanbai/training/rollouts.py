"""Answers of the policy as tensors, and what four models say of them.

A response token's log-probability and value are read at the position before it; logits are computed there and nowhere
else.

Shapes: N responses (of an iteration, or of the group at hand), R response tokens (padded), M response tokens without
padding, B rows and T positions of packed sequences, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum

import torch
from torch import Tensor

from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.parallel import map_parts
from sanbai.generation.answering import Completion
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.objectives.kl import kl_estimate
from sanbai.objectives.language import entropy, token_logprobs
from sanbai.training.sequences import PackedSequences, group_by_tokens, pack_sequences

#: (prompts, responses) as token ids -> one number a response.
Score = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Rollouts:
    """What the policy said to one iteration's prompts: token in, token out, never encoded again."""

    prompts: Sequence[Sequence[int]]
    completions: Sequence[Completion]

    @property
    def responses(self) -> list[list[int]]:
        """The answers' tokens, `<|end|>` included where it was drawn."""
        return [completion.tokens for completion in self.completions]

    @property
    def lengths(self) -> list[int]:
        """Tokens of prompt and response together."""
        return [len(p) + len(c.tokens) for p, c in zip(self.prompts, self.completions, strict=True)]

    def select(self, rows: Sequence[int]) -> Rollouts:
        """Return those of some rows."""
        return Rollouts([self.prompts[row] for row in rows], [self.completions[row] for row in rows])

    def mask(self) -> Tensor:
        """Return mask_NR, 1 on response tokens, by lengths: neither pad nor end is recognised by its id."""
        length_N = torch.tensor([len(completion.tokens) for completion in self.completions])
        return (torch.arange(int(length_N.max())) < length_N[:, None]).float()

    def sampler_logprobs(self) -> Tensor:
        """Return logprob_NR that the sampler reported; 0 on padding."""
        rows = [torch.tensor(completion.logprobs, dtype=torch.float32) for completion in self.completions]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def repeated_share(responses: Sequence[Sequence[int]], *, size: int = 4) -> float:
    """Return the share of pieces of `size` tokens that stood in the same answer before; 0 where none is that long."""
    pieces = [[tuple(each[t : t + size]) for t in range(len(each) - size + 1)] for each in responses]
    num_pieces = sum(map(len, pieces))
    return 1 - sum(len(set(found)) for found in pieces) / num_pieces if num_pieces else 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Some responses laid out for a forward pass.

    Attributes:
        sequences: prompts with their responses.
        before_M: index in the flattened B·T of the position before each response token.
        cell_M: index in the flattened N·R of each response token.
        target_M: the response tokens.
        num_steps: R, tokens of the longest response.
    """

    sequences: PackedSequences
    before_M: Tensor
    cell_M: Tensor
    target_M: Tensor
    num_steps: int

    def to_grid(self, value_M: Tensor) -> Tensor:
        """Return value_NR, 0 on padding."""
        num_responses = len(self.sequences.start_N)
        empty = torch.zeros(num_responses * self.num_steps, dtype=value_M.dtype, device=value_M.device)
        return empty.index_copy(0, self.cell_M, value_M).view(num_responses, self.num_steps)


def lay_out(rollouts: Rollouts, group: Sequence[int], *, context: int, device: torch.device | str = "cpu") -> Layout:
    """Return the layout of the responses with the given indices, for a model of `context` positions."""
    prompts = [rollouts.prompts[index] for index in group]
    responses = [rollouts.completions[index].tokens for index in group]
    rows = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    sequences = pack_sequences(rows, context=context, device=device)
    num_steps = max(map(len, responses))
    response_length_N = torch.tensor([len(response) for response in responses], device=device)
    step_R = torch.arange(num_steps, device=device)
    counts_NR = step_R < response_length_N[:, None]
    before_NR = (sequences.last() - response_length_N)[:, None] + step_R
    before_M = before_NR[counts_NR]
    return Layout(
        sequences,
        before_M,
        cell_M=counts_NR.flatten().nonzero().squeeze(1),
        target_M=sequences.tokens_BT.flatten()[before_M + 1],
        num_steps=num_steps,
    )


def response_logits(model: LanguageModel, layout: Layout) -> Tensor:
    """Return logits_MV at the positions before response tokens; call under autocast for bfloat16."""
    hidden_BTD = model.trunk(layout.sequences.tokens_BT, segments_BT=layout.sequences.segments_BT)
    return model.logits(hidden_BTD.flatten(0, 1).index_select(0, layout.before_M))


def response_logprobs(model: LanguageModel, layout: Layout, *, temperature: float, compute: Compute) -> Tensor:
    """Return logprob_NR of the response tokens at the sampling temperature, 0 on padding."""
    with autocast(compute):
        logits_MV = response_logits(model, layout)
    return layout.to_grid(token_logprobs(logits_MV, layout.target_M, temperature=temperature))


def response_values(model: ScalarModel, layout: Layout, *, compute: Compute) -> Tensor:
    """Return value_NR before each response token, 0 on padding."""
    with autocast(compute):
        value_BT = model(layout.sequences.tokens_BT, segments_BT=layout.sequences.segments_BT)
    return layout.to_grid(value_BT.flatten().index_select(0, layout.before_M))


def response_kl(
    rollouts: Rollouts,
    policy: LanguageModel,
    reference: LanguageModel,
    *,
    temperature: float,
    compute: Compute,
    max_tokens: int,
    before_part: Callable[[], None] | None = None,
) -> float:
    """Return the mean KL(policy ‖ reference) in nats a response, by k3, from responses that the policy has drawn.

    Args:
        rollouts: sampled at `temperature`, not warped.
        policy: that drew them.
        reference: what it may not stray far from.
        temperature: the sampler's.
        compute: precision and device.
        max_tokens: computed at once.
        before_part: called before each part of the responses; what it raises ends the work.
    """

    @torch.no_grad()
    def kl_of(group: Sequence[int]) -> float:
        if before_part is not None:
            before_part()
        layout = lay_out(rollouts, group, context=policy.config.max_positions, device=compute.device)
        logprob_GR, reference_GR = (
            response_logprobs(model, layout, temperature=temperature, compute=compute) for model in (policy, reference)
        )
        return kl_estimate(logprob_GR, reference_GR, estimator="k3").sum().item()

    return fsum(map_parts(kl_of, group_by_tokens(rollouts.lengths, max_tokens=max_tokens))) / len(rollouts.prompts)


@dataclass(frozen=True, slots=True)
class Readings:
    """What policy, reference and value model said of an iteration's responses before any update; no gradients.

    All have shape N, R, are 0 on padding, and log-probabilities are at the sampling temperature. What a model that was
    not asked would have said is 0.
    """

    logprob_NR: Tensor
    reference_logprob_NR: Tensor
    value_NR: Tensor
    entropy_NR: Tensor


def read(
    rollouts: Rollouts,
    groups: Sequence[Sequence[int]],
    *,
    policy: LanguageModel,
    reference: LanguageModel | None,
    value: ScalarModel | None,
    temperature: float,
    compute: Compute,
    before_group: Callable[[], None] | None = None,
) -> Readings:
    """Run the models over all responses, group by group.

    The kernels are those of the update (attention has others where no gradient is wanted): the same weights on the
    same group give the same bits, so the first minibatch's ratio is exactly 1 and an unchanged policy's KL exactly 0,
    in any precision.

    Args:
        rollouts: the responses.
        groups: indices computed together; the update's first groups.
        policy: as it sampled.
        reference: the policy that it may not stray far from, where it is asked.
        value: the critic, where there is one.
        temperature: the sampler's.
        compute: precision and device.
        before_group: called before each, in its thread; what it raises ends the work.
    """
    shape, exact = rollouts.mask().shape, torch.promote_types(policy.head_weight.dtype, torch.float32)
    logprob_NR, reference_NR, value_NR, entropy_NR = (torch.zeros(shape, dtype=exact) for _ in range(4))

    def read_group(group: Sequence[int]) -> None:
        if before_group is not None:
            before_group()
        layout = lay_out(rollouts, group, context=policy.config.max_positions, device=compute.device)
        here = torch.tensor(group), slice(0, layout.num_steps)
        with torch.enable_grad(), autocast(compute):
            logits_MV = response_logits(policy, layout).detach()
        with torch.no_grad():
            entropy_M = entropy(logits_MV, temperature=temperature)
            logprob_M = token_logprobs(logits_MV, layout.target_M, temperature=temperature)
        with torch.enable_grad():
            if reference is not None:
                reference_GR = response_logprobs(reference, layout, temperature=temperature, compute=compute).detach()
                reference_NR[here] = reference_GR.cpu()
            if value is not None:
                value_NR[here] = response_values(value, layout, compute=compute).detach().cpu()
        logprob_NR[here] = layout.to_grid(logprob_M).cpu()
        entropy_NR[here] = layout.to_grid(entropy_M).cpu()

    map_parts(read_group, groups)
    return Readings(logprob_NR, reference_NR, value_NR, entropy_NR)
