"""Shards: a corpus as token ids in flat files, read through the memory map.

A document is `<|end_of_text|>` + its text's ids + `<|end_of_text|>`: the first gives its first token something to
follow, the last is what teaches a model to stop (packed documents do not see each other, so no other would).

    <split>.bin         token ids, little-endian uint16 where the vocabulary allows, else uint32; nothing else
    <split>.bounds.npy  int64 (documents + 1): document d is ids[bounds[d] : bounds[d + 1]]
    <split>.bytes.npy   int64 (documents): UTF-8 bytes of each text, the denominator of bits per byte
    shards.json         dtype, vocabulary, and per split: documents, tokens, bytes
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from sanbai.data.packing import WHOLE
from sanbai.data.vocabulary import load_tokenizer
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import ArtifactError, DataError
from sanbai.foundation.files import read_json, read_jsonl, write_json_atomic
from sanbai.foundation.stage import Stage
from sanbai.text.tokenizer import Tokenizer

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")

#: Documents encoded at once: enough for every thread, few enough to stop within a second.
BATCH_DOCUMENTS = 2048

Item = TypeVar("Item")


def build_shards(stage: Stage, corpus: Artifact, tokenizer: Artifact) -> dict[str, Any]:
    """Encode both splits of a corpus and return documents, tokens and bytes of each.

    Args:
        stage: its folder receives the files; one step is one document, so `num_steps` is the corpus' number of
            kept documents.
        corpus: made by `build_corpus`.
        tokenizer: made by `build_tokenizer`.
    """
    encoder = load_tokenizer(tokenizer)
    done = 0
    splits = {}
    for split in SPLITS:
        writer = ShardWriter(stage.folder, split, encoder)
        rows = read_jsonl(corpus.file(f"{split}.jsonl.gz"))
        for batch in _batches((row["text"] for row in rows), BATCH_DOCUMENTS):
            writer.write(batch)
            done += len(batch)
            stage.run.record(done, tokens=writer.num_tokens)
            stage.run.raise_if_stopping()
        splits[split] = writer.close()
    layout = {"dtype": token_type(encoder.vocab_size).name, "vocab_size": encoder.vocab_size, "splits": splits}
    write_json_atomic(stage.folder / "shards.json", layout)
    return {f"{split}_{name}": value for split, sizes in splits.items() for name, value in sizes.items()}


def token_type(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest of uint16 and uint32 that holds every id."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


class ShardWriter:
    """Writes one split: ids as they come, the index at the end."""

    def __init__(self, folder: Path, split: Split, tokenizer: Tokenizer) -> None:
        self._folder, self._split, self._tokenizer = folder, split, tokenizer
        self._dtype = token_type(tokenizer.vocab_size)
        self._file = (folder / f"{split}.bin").open("wb")
        self._lengths: list[int] = []
        self._bytes: list[int] = []
        self.num_tokens = 0

    def write(self, texts: list[str]) -> None:
        """Append documents.

        Raises:
            DataError: a text is not Unicode.
        """
        mark = [self._tokenizer.reserved.end_of_text]
        for text, ids in zip(texts, self._tokenizer.encode_batch(texts), strict=True):
            document = np.array(mark + ids + mark, dtype=self._dtype)
            self._file.write(document.tobytes())
            self._lengths.append(len(document))
            self._bytes.append(len(text.encode()))
            self.num_tokens += len(document)

    def close(self) -> dict[str, int]:
        """Write the index and return the split's sizes."""
        self._file.close()
        bounds = np.concatenate([[0], np.cumsum(self._lengths, dtype=np.int64)]).astype(np.int64)
        np.save(self._folder / f"{self._split}.bounds.npy", bounds, allow_pickle=False)
        np.save(self._folder / f"{self._split}.bytes.npy", np.array(self._bytes, dtype=np.int64), allow_pickle=False)
        return {"documents": len(self._lengths), "tokens": self.num_tokens, "bytes": sum(self._bytes)}


class ShardReader:
    """One split of a shards artifact, memory-mapped. A source of items for `packing`; every token is learned.

    Attributes:
        lengths: int64 (documents), tokens of each document, both marks included.
        num_bytes: int64 (documents), UTF-8 bytes of each text.
        vocab_size: of the tokenizer that encoded it.
    """

    def __init__(self, shards: Artifact, split: Split) -> None:
        """Open the files.

        Raises:
            ArtifactError: a file is altered, truncated, or does not fit the others.
            DataError: the split holds no document.
        """
        layout = read_json(shards.file("shards.json"))
        path = shards.file(f"{split}.bin")
        self._bounds: NDArray[np.int64] = np.load(shards.file(f"{split}.bounds.npy"), allow_pickle=False)
        self.num_bytes: NDArray[np.int64] = np.load(shards.file(f"{split}.bytes.npy"), allow_pickle=False)
        self.vocab_size = int(layout["vocab_size"])
        dtype = token_type(self.vocab_size)
        if len(self.num_bytes) == 0:
            raise DataError(f"{path}: the {split} split is empty; give more documents or change data.validation_share")
        if path.stat().st_size != int(self._bounds[-1]) * dtype.itemsize:
            raise ArtifactError(f"{path}: found {path.stat().st_size} bytes, wanted {self._bounds[-1]} ids of {dtype}")
        self._tokens = np.memmap(path, dtype=dtype, mode="r")
        self.lengths: NDArray[np.int64] = np.diff(self._bounds)

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """Tokens of the split, marks included."""
        return int(self._bounds[-1])

    def tokens(self, index: int, piece: slice = WHOLE) -> NDArray[np.int64]:
        """Return one document's ids, marks included, or a piece of them."""
        return self._tokens[self._bounds[index] : self._bounds[index + 1]][piece].astype(np.int64)

    def loss_mask(self, index: int, piece: slice = WHOLE) -> NDArray[np.bool_]:
        """Return a mask over one document's tokens, or a piece of them: all are learned."""
        return np.ones(len(range(int(self.lengths[index]))[piece]), dtype=np.bool_)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
