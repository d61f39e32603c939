"""Prompts with several answers as rows in which each prompt stands once: a tree of depth one.

A tree is a segment of its row; within it the prompt is branch 0 and the answers are branches 1, 2, ..., which see the
prompt and themselves and never each other (`model.mask`). An answer's positions continue the prompt's, so the numbers
are those of separate passes, with a third of their tokens at seven answers of a quarter of the prompt's length.

Shapes: N answers, M tokens of all answers, P trees as laid out, B rows, T positions a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sanbai.data.packing import best_fit
from sanbai.training.sequences import ROW_TOKENS, group_by_tokens, row_width


@dataclass(frozen=True, slots=True)
class Tree:
    """A prompt and some answers to it, as token ids."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]

    @property
    def num_tokens(self) -> int:
        """Of the prompt once and of all answers."""
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass(frozen=True, slots=True)
class PackedTrees:
    """Trees laid into rows.

    Attributes:
        tokens_BT: ids; 0 on padding.
        segments_BT: 1, 2, ... for the trees of a row, 0 on padding.
        branches_BT: 0 for prompts and padding, 1, 2, ... for the answers of a tree.
        positions_BT: distance from the prompt's start, each answer's continuing the prompt's.
        last_N: index in the flattened B·T of each answer's last token, trees and answers in their order.
        token_M: index in the flattened B·T of each token of the answers, in their order.
        before_M: index of the token before it: within the answer, or the prompt's last.
        answer_M: the answer, 0 to N - 1, that the token is of.
    """

    tokens_BT: Tensor
    segments_BT: Tensor
    branches_BT: Tensor
    positions_BT: Tensor
    last_N: Tensor
    token_M: Tensor
    before_M: Tensor
    answer_M: Tensor


def pack_trees(trees: Sequence[Tree], *, context: int, device: torch.device | str = "cpu") -> PackedTrees:
    """Lay trees into as few rows as best fit finds.

    A tree longer than the context becomes several of the same prompt; rows are no longer than the context, unless a
    prompt with one answer is (the model then says so).

    Args:
        trees: a prompt and at least one answer each, of at least one token.
        context: positions that the model has.
        device: where the tensors go.
    """
    parts = [part for tree in trees for part in _split(tree, context)]
    length_P = np.array([part.num_tokens for part in parts], dtype=np.int64)
    width = max(row_width(int(length_P.max()), context), min(ROW_TOKENS, context))
    row_P = best_fit(length_P, width)
    num_rows = int(row_P.max()) + 1
    tokens_BT, segments_BT, branches_BT, positions_BT = (np.zeros((num_rows, width), dtype=np.int64) for _ in range(4))
    filled_B, num_trees_B = [0] * num_rows, [0] * num_rows
    last_N, token_M, before_M, answer_M = (list[int]() for _ in range(4))
    for part, row in zip(parts, row_P.tolist(), strict=True):
        num_trees_B[row] += 1
        for branch, tokens in enumerate((part.prompt, *part.answers)):
            start, end = filled_B[row], filled_B[row] + len(tokens)
            first = len(part.prompt) if branch else 0
            tokens_BT[row, start:end] = tokens
            segments_BT[row, start:end] = num_trees_B[row]
            branches_BT[row, start:end] = branch
            positions_BT[row, start:end] = np.arange(first, first + len(tokens))
            filled_B[row] = end
            places = range(row * width + start, row * width + end)
            if branch == 0:
                prompt_end = places[-1]
                continue
            answer_M += [len(last_N)] * len(places)
            token_M += places
            before_M += [prompt_end, *places[:-1]]
            last_N.append(places[-1])
    arrays = (tokens_BT, segments_BT, branches_BT, positions_BT)
    indices = (np.array(index, dtype=np.int64) for index in (last_N, token_M, before_M, answer_M))
    return PackedTrees(*(torch.from_numpy(array).to(device) for array in (*arrays, *indices)))


def _split(tree: Tree, context: int) -> list[Tree]:
    room = max(1, context - len(tree.prompt))
    groups = group_by_tokens([len(answer) for answer in tree.answers], max_tokens=room)
    return [Tree(tree.prompt, tuple(tree.answers[index] for index in group)) for group in groups]
