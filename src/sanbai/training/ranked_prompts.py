"""Ranked prompts: each with all its different answers, how often one was placed above another, and their thumbs.

A prompt with all its answers is one element of a batch: it is read once and so is every answer, and all pairs of its
answers count together. Pairs spread over batches over-fit within one epoch, and read each answer K - 1 times.

Shapes: B prompts, K answers a prompt (padded to the largest K of the batch), N answers of all prompts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sanbai.data.rankings import Ranking
from sanbai.data.thumbs import ThumbedAnswer
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import canonical_json
from sanbai.foundation.seeds import derive_seed
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.order import endless_order
from sanbai.training.trees import Tree


@dataclass(frozen=True, slots=True)
class RankedPrompt:
    """One element of a batch.

    Attributes:
        key: names the prompt, equal for equal messages.
        tree: the prompt, and each different answer with its `<|end|>`.
        preference_KK: how many labelers placed answer i strictly above answer j.
        thumbs_K2: how many thumbs up, and how many down, each answer got by itself.
    """

    key: str
    tree: Tree
    preference_KK: NDArray[np.float32]
    thumbs_K2: NDArray[np.float32]


def collect_ranked_prompts(
    tokenizer: Tokenizer,
    rankings: Iterable[Ranking],
    thumbs: Iterable[ThumbedAnswer] = (),
    /,
    *,
    max_prompt_tokens: int,
    max_response_tokens: int,
) -> list[RankedPrompt]:
    """Bring all rankings and thumbs of a prompt together, equal answers as one.

    A preference between two equal texts says nothing and is dropped; so are prompts without any strict preference or
    thumb.

    Args:
        tokenizer: encodes prompts and answers.
        rankings: of any number of labelers.
        thumbs: of any number of people; each counts.
        max_prompt_tokens: longer prompts lose their beginning.
        max_response_tokens: longer answers are left out.

    Raises:
        DataError: no strict preference or thumb at all.
    """
    by_prompt: dict[str, tuple[list[Ranking], list[ThumbedAnswer]]] = defaultdict(lambda: ([], []))
    for ranking in rankings:
        by_prompt[canonical_json(list(ranking.messages))][0].append(ranking)
    for thumb in thumbs:
        by_prompt[canonical_json(list(thumb.messages))][1].append(thumb)
    elements = []
    for key in sorted(by_prompt):
        same, liked = by_prompt[key]
        texts = dict.fromkeys([text for ranking in same for text in ranking.responses])
        texts |= dict.fromkeys(thumb.response for thumb in liked)
        messages = same[0].messages if same else liked[0].messages
        prompt = encode_prompt(tokenizer, messages, max_tokens=max_prompt_tokens)
        answers = {text: tokenizer.encode(text) for text in texts}
        answers = {text: tokens for text, tokens in answers.items() if len(tokens) <= max_response_tokens}
        number = {text: index for index, text in enumerate(answers)}
        preference_KK = np.zeros((len(answers), len(answers)), dtype=np.float32)
        for ranking in same:
            for better, worse in ranking.pairs():
                chosen, rejected = ranking.responses[better], ranking.responses[worse]
                if chosen != rejected and chosen in number and rejected in number:
                    preference_KK[number[chosen], number[rejected]] += 1
        thumbs_K2 = np.zeros((len(answers), 2), dtype=np.float32)
        for thumb in liked:
            if thumb.response in number:
                thumbs_K2[number[thumb.response], 0 if thumb.value > 0 else 1] += 1
        if preference_KK.any() or thumbs_K2.any():
            ended = tuple((*tokens, tokenizer.reserved.end) for tokens in answers.values())
            elements.append(RankedPrompt(key, Tree(tuple(prompt), ended), preference_KK, thumbs_K2))
    if not elements:
        raise DataError(
            f"no ranking places one answer of at most {max_response_tokens} tokens above another, and none has a "
            "thumb; collect rankings that are not all ties, or raise max_response_tokens"
        )
    return elements


def split_by_prompt(
    elements: Sequence[RankedPrompt], share: float, *, seed: int
) -> tuple[list[RankedPrompt], list[RankedPrompt]]:
    """Return (training, held out); where a prompt falls depends on its text and the seed, not on other prompts.

    Raises:
        DataError: nothing is left to train on.
    """
    held_out = [derive_seed(seed, "held out", element.key) / 2**63 < share for element in elements]
    training = [element for element, out in zip(elements, held_out, strict=True) if not out]
    if not training:
        raise DataError(f"all {len(elements)} ranked prompts fell into the held-out share {share}; collect more")
    return training, [element for element, out in zip(elements, held_out, strict=True) if out]


def num_batches(num_prompts: int, *, size: int, num_epochs: int) -> int:
    """Return the batches in which `num_prompts` are read `num_epochs` times; the last one may be smaller."""
    return -(-num_prompts * num_epochs // size)


def batch_of(
    elements: Sequence[RankedPrompt], number: int, *, size: int, num_epochs: int, seed: int
) -> list[RankedPrompt]:
    """Return batch 0, 1, ... of `num_batches`: all prompts in a shuffled order, then in another."""
    start = number * size
    count = min(size, len(elements) * num_epochs - start)
    return [elements[index] for index in endless_order(len(elements), start=start, count=count, seed=seed)]


def stack_preferences(part: Sequence[RankedPrompt]) -> Tensor:
    """Return preference_BKK of some prompts, 0 on padding."""
    num_answers = max(len(element.tree.answers) for element in part)
    preference_BKK = torch.zeros(len(part), num_answers, num_answers)
    for number, element in enumerate(part):
        size = len(element.tree.answers)
        preference_BKK[number, :size, :size] = torch.from_numpy(element.preference_KK)
    return preference_BKK


def stack_thumbs(part: Sequence[RankedPrompt]) -> Tensor:
    """Return thumbs_BK2 of some prompts, 0 on padding."""
    thumbs_N2 = torch.from_numpy(np.concatenate([element.thumbs_K2 for element in part]))
    return torch.stack([to_grid(thumbs_N, part) for thumbs_N in thumbs_N2.unbind(1)], dim=2)


def to_grid(value_N: Tensor, part: Sequence[RankedPrompt]) -> Tensor:
    """Return value_BK of the answers of some prompts, in their order; 0 on padding."""
    num_answers = max(len(element.tree.answers) for element in part)
    cells = [
        prompt * num_answers + answer
        for prompt, element in enumerate(part)
        for answer in range(len(element.tree.answers))
    ]
    empty = torch.zeros(len(part) * num_answers, dtype=value_N.dtype, device=value_N.device)
    cell_N = torch.tensor(cells, device=value_N.device)
    return empty.index_copy(0, cell_N, value_N).view(len(part), num_answers)
