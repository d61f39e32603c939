"""Bits per byte of held-out documents: how well a model reads, whatever its vocabulary.

A document is read after the end-of-text mark that opens every document in training; the mark itself is not predicted,
so that only bytes of text are paid for. Documents longer than the model's positions are read in windows that overlap by
half: every token is scored once, with at least half a window of context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, log

import numpy as np
from numpy.typing import NDArray

from sanbai.data.shards import ShardReader
from sanbai.evaluation.statistics import DRAWS, Estimate, bootstrap_ratio
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import DataError
from sanbai.generation.scoring import score
from sanbai.model.heads import LanguageModel


@dataclass(frozen=True, slots=True)
class HeldOutDocument:
    """A document that no model was trained on.

    Attributes:
        tokens: its text's ids, without any mark before or after.
        num_bytes: length of its text in UTF-8.
    """

    tokens: Sequence[int]
    num_bytes: int


def heldout_documents(shards: Artifact, num: int) -> list[HeldOutDocument]:
    """Return the first documents of the validation split, the marks before and after them taken off."""
    reader = ShardReader(shards, "validation")
    return [
        HeldOutDocument(tokens=reader.tokens(index)[1:-1].tolist(), num_bytes=int(reader.num_bytes[index]))
        for index in range(min(num, len(reader)))
    ]


@dataclass(frozen=True, slots=True)
class Window:
    """A row of tokens of which those from `first_scored` on count.

    Attributes:
        document: index of the document that it belongs to.
        row: token ids, at most as many as the model has positions.
        first_scored: index in `row`, at least 1.
    """

    document: int
    row: Sequence[int]
    first_scored: int


def document_windows(documents: Sequence[HeldOutDocument], *, begin_id: int, context: int) -> list[Window]:
    """Cut documents into windows of at most `context` tokens, each text token scored in exactly one of them.

    Args:
        documents: at least one; empty ones give no window.
        begin_id: the mark that opens a document.
        context: longest row, at least 2.
    """
    assert context >= 2
    windows = []
    for number, document in enumerate(documents):
        row = [begin_id, *document.tokens]
        scored = 1
        while scored < len(row):
            start = 0 if scored == 1 else max(0, scored - context // 2)
            stop = min(len(row), start + context)
            windows.append(Window(document=number, row=row[start:stop], first_scored=scored - start))
            scored = stop
    return windows


def document_bits(
    model: LanguageModel,
    documents: Sequence[HeldOutDocument],
    *,
    begin_id: int,
    context: int,
    batch_size: int = 32,
) -> NDArray[np.float64]:
    """Return -log2 p(document) for each document, in bits; the numerators of bits per byte."""
    windows = document_windows(documents, begin_id=begin_id, context=context)
    logprobs = score(
        model,
        [window.row[: window.first_scored] for window in windows],
        [window.row[window.first_scored :] for window in windows],
        batch_size=batch_size,
    )
    bits = np.zeros(len(documents))
    for window, logprob in zip(windows, logprobs, strict=True):
        bits[window.document] -= fsum(logprob) / log(2)
    return bits


def bits_per_byte_of(
    bits: NDArray[np.float64], documents: Sequence[HeldOutDocument], *, seed: int, draws: int = DRAWS
) -> Estimate:
    """Sum of bits over sum of bytes, with an interval from resampling documents; empty ones are left out."""
    num_bytes = np.array([document.num_bytes for document in documents], dtype=np.float64)
    text = np.flatnonzero(num_bytes)
    if len(text) == 0:
        raise DataError("no held-out text to read: every document is empty; give the corpus a larger held-out share")
    return bootstrap_ratio(bits[text], num_bytes[text], seed=seed, draws=draws)


def bits_per_byte(
    model: LanguageModel,
    documents: Sequence[HeldOutDocument],
    *,
    begin_id: int,
    context: int,
    seed: int,
    batch_size: int = 32,
    draws: int = DRAWS,
) -> Estimate:
    """Read the documents and return bits per byte with its interval.

    sum_d -log2 p(d) / sum_d bytes(d)

    Args:
        model: the reader.
        documents: held-out text.
        begin_id: the mark that opens a document.
        context: longest window in tokens, at most the model's positions.
        seed: of the bootstrap over documents.
        batch_size: windows of a forward pass.
        draws: resamples.
    """
    bits = document_bits(model, documents, begin_id=begin_id, context=context, batch_size=batch_size)
    return bits_per_byte_of(bits, documents, seed=seed, draws=draws)
