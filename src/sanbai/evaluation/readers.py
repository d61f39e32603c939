"""Who reads held-out text, side by side: the models, a model that only counts, and xz.

All of them are given the same bytes of the same documents, and have read the same training text before.

Shapes: U documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanbai.data.shards import ShardReader
from sanbai.evaluation.compression import Compression, compress_held_out
from sanbai.evaluation.language import HeldOutDocument, bits_per_byte_of, document_bits
from sanbai.evaluation.ngram import fit_ngram
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer

Floats = NDArray[np.float64]
#: Called between two pieces of work; may raise to stop.
OnPiece = Callable[[], None]

#: Documents read between two chances to stop.
DOCUMENTS_A_PIECE = 16


@dataclass(frozen=True)
class HeldOutText:
    """Documents that no reader was trained on.

    Attributes:
        documents: tokens and bytes, at least one.
        sources: where each comes from; figures are given by source too.
    """

    documents: Sequence[HeldOutDocument]
    sources: Sequence[str]


def excerpts(reader: ShardReader, tokenizer: Tokenizer, *, num: int, max_tokens: int) -> list[HeldOutDocument]:
    """Return the beginnings of a split's first documents, the marks before and after them left out.

    Args:
        reader: the validation split.
        tokenizer: that encoded it.
        num: documents wanted.
        max_tokens: of each; a whole book would outweigh everything else.
    """
    found = []
    for index in range(min(num, len(reader))):
        tokens = reader.tokens(index)[1:-1][:max_tokens].tolist()
        found.append(HeldOutDocument(tokens, len(text_bytes(tokenizer, tokens))))
    return found


def text_bytes(tokenizer: Tokenizer, tokens: Sequence[int]) -> bytes:
    """Return the bytes of a text's first tokens, without what the tokenizer puts before every text."""
    return b"".join(map(tokenizer.token_bytes, tokens)).removeprefix(tokenizer.prefix.encode())


def model_bits(model: LanguageModel, text: HeldOutText, *, begin_id: int, on_piece: OnPiece) -> Floats:
    """Return the bits of each document under a neural model, shape U."""
    parts = []
    for start in range(0, len(text.documents), DOCUMENTS_A_PIECE):
        piece = text.documents[start : start + DOCUMENTS_A_PIECE]
        parts.append(document_bits(model, piece, begin_id=begin_id, context=model.config.max_positions))
        on_piece()
    return np.concatenate(parts)


def ngram_bits(training: ShardReader, text: HeldOutText, *, begin_id: int, on_piece: OnPiece) -> tuple[Floats, int]:
    """Count the training split's n-grams; return the bits of each document, shape U, and the order of the model."""

    def documents() -> list[NDArray[np.int64]]:
        return [training.tokens(index)[1:-1] for index in range(len(training))]

    model = fit_ngram(documents(), vocab_size=training.vocab_size, begin_id=begin_id, on_order=on_piece)
    return model.document_bits([document.tokens for document in text.documents]), model.order


def xz_bits(training: ShardReader, text: HeldOutText, tokenizer: Tokenizer, *, on_piece: OnPiece) -> Compression:
    """Compress the same documents with xz, alone and after the training split."""
    return compress_held_out(
        [text_bytes(tokenizer, document.tokens) for document in text.documents],
        [text_bytes(tokenizer, training.tokens(index)[1:-1].tolist()) for index in range(len(training))],
        on_chunk=on_piece,
    )


def reading_record(
    bits: Mapping[str, Floats], compression: Compression, text: HeldOutText, *, seed: int, draws: int
) -> dict[str, Any]:
    """Return `reading` of `evaluation.json`: bits per byte of each reader, overall and by source.

    Args:
        bits: reader -> bits of each document, shape U.
        compression: xz's two figures; they have no interval, for xz reads all documents as one.
        text: what was read.
        seed: of the bootstrap over documents.
        draws: resamples.
    """

    def estimates(inside: Sequence[int]) -> dict[str, Any]:
        documents = [text.documents[index] for index in inside]
        return {
            reader: bits_per_byte_of(bits_U[list(inside)], documents, seed=seed, draws=draws).to_json()
            for reader, bits_U in bits.items()
        }

    by_source: dict[str, list[int]] = {}
    for index, source in enumerate(text.sources):
        by_source.setdefault(source, []).append(index)
    return {
        "bits_per_byte": estimates(range(len(text.documents))),
        "xz": compression.to_json(),
        "by_source": {source: estimates(inside) for source, inside in sorted(by_source.items())},
        "num_documents": len(text.documents),
        "num_bytes": sum(document.num_bytes for document in text.documents),
    }
