"""The stage that learns a vocabulary from the training documents of a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.files import read_jsonl
from sanbai.foundation.stage import Stage
from sanbai.text.companions import FILES
from sanbai.text.recipe import TokenizerRecipe
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

#: Reading the texts and merging is one step; measuring is the other.
NUM_TOKENIZER_STEPS = 2


def build_tokenizer(
    stage: Stage, corpus: Artifact, recipe: TokenizerRecipe, *, extra_markers: Sequence[str] = ()
) -> dict[str, Any]:
    """Write a tokenizer's folder and return its metrics, among them bytes per token on held-out documents.

    Args:
        stage: its folder receives `tokenizer.json` and companions.
        corpus: made by `build_corpus`.
        recipe: size and sample.
        extra_markers: reserved tokens that an objective needs beside the usual ones.
    """
    texts = sample_texts(corpus.file("train.jsonl.gz"), recipe.sample_bytes)
    tokenizer = train_tokenizer(
        texts, vocab_size=recipe.vocab_size, min_frequency=recipe.min_frequency, extra_markers=extra_markers
    )
    stage.run.record(1, vocab_size=tokenizer.vocab_size)
    stage.run.raise_if_stopping()
    tokenizer.save(stage.folder)
    held_out = list(sample_texts(corpus.file("validation.jsonl.gz"), recipe.sample_bytes))
    num_bytes = sum(len(text.encode()) for text in held_out)
    num_tokens = sum(map(len, tokenizer.encode_batch(held_out)))
    metrics = {"vocab_size": tokenizer.vocab_size, "bytes_per_token": num_bytes / max(num_tokens, 1)}
    stage.run.record(2, **metrics)
    return metrics


def load_tokenizer(artifact: Artifact) -> Tokenizer:
    """Open a tokenizer artifact, or any artifact that holds one, checked against its manifest.

    Raises:
        ArtifactError: altered, truncated, or without a tokenizer.
    """
    beside = [name for name in FILES if name in artifact.manifest["files"]]
    for name in ("tokenizer.json", *beside):
        artifact.file(name)
    return Tokenizer.load(artifact.path)


def sample_texts(path: Path, num_bytes: int) -> Iterator[str]:
    """Yield the texts of a document file from its beginning, until they hold `num_bytes` of UTF-8 or more."""
    seen = 0
    for row in read_jsonl(path):
        yield row["text"]
        seen += len(row["text"].encode())
        if seen >= num_bytes:
            return
