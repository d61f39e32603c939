"""Ragged token sequences as tensors, with segments that tell padding from tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sanbai.foundation.errors import DataError

PADDING_TOKEN = 0
"""What stands on padding. Any id would do: segment 0 is never looked at."""


class PaddedBatch(NamedTuple):
    """Rows of one length."""

    tokens_BT: Tensor
    segments_BT: Tensor
    """1 on tokens, 0 on padding, as `Transformer.forward` takes them."""


def pad_right(sequences: Sequence[Sequence[int]]) -> PaddedBatch:
    """Return rows that begin together, as scoring needs them.

    Raises:
        DataError: a sequence is empty.
    """
    width = max(map(len, sequences), default=0)
    rows, segments = [], []
    for index, sequence in enumerate(sequences):
        if not sequence:
            raise DataError(f"sequence {index} of a batch has no token; a prompt needs at least one")
        missing = width - len(sequence)
        rows.append([*sequence, *[PADDING_TOKEN] * missing])
        segments.append([1] * len(sequence) + [0] * missing)
    return PaddedBatch(torch.tensor(rows, dtype=torch.int64), torch.tensor(segments, dtype=torch.int64))
