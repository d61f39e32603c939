from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sanbai.data.documents import Document
from sanbai.data.packing import PackedBatches
from sanbai.data.records import write_records
from sanbai.data.shards import ShardReader, ShardWriter, build_shards, token_type
from sanbai.data.vocabulary import build_tokenizer, load_tokenizer
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import ArtifactError, DataError
from sanbai.foundation.stage import Stage
from sanbai.text.recipe import TokenizerRecipe

TEXTS = {
    "train": [f"Anna number {n} bakes <|user|> bread." * (n % 3 + 1) for n in range(40)] + ["村里有磨坊 😀"],
    "validation": ["Bert sells bread.", "x"],
}

MakeArtifact = Callable[..., Artifact]


@pytest.fixture(scope="module")
def artifacts(make_artifact: MakeArtifact) -> tuple[Artifact, Artifact]:
    """Tokenizer and shards of a small corpus."""

    def write_corpus(stage: Stage) -> dict[str, int]:
        for split, texts in TEXTS.items():
            write_records(stage.folder / f"{split}.jsonl.gz", [Document(str(n), text) for n, text in enumerate(texts)])
        return {}

    corpus = make_artifact("corpus", write_corpus)
    recipe = TokenizerRecipe(vocab_size=300)
    tokenizer = make_artifact("tokenizer", lambda stage: build_tokenizer(stage, corpus, recipe))
    return tokenizer, make_artifact("shards", lambda stage: build_shards(stage, corpus, tokenizer))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_document_decodes_to_its_text_between_two_marks(artifacts: tuple[Artifact, Artifact], split: str) -> None:
    tokenizer = load_tokenizer(artifacts[0])
    reader = ShardReader(artifacts[1], split)  # type: ignore[arg-type]
    assert len(reader) == len(TEXTS[split])
    for index, text in enumerate(TEXTS[split]):
        ids = reader.tokens(index)
        assert ids[0] == ids[-1] == tokenizer.reserved.end_of_text
        assert tokenizer.reserved_ids.isdisjoint(ids[1:-1].tolist())
        assert tokenizer.decode(ids.tolist()) == text
        assert reader.num_bytes[index] == len(text.encode())
        assert reader.lengths[index] == len(ids) == len(reader.loss_mask(index))


def test_the_metrics_are_the_sums_of_the_index(artifacts: tuple[Artifact, Artifact]) -> None:
    reader = ShardReader(artifacts[1], "train")
    metrics = artifacts[1].metrics
    assert metrics["train_documents"] == 41
    assert metrics["train_tokens"] == reader.num_tokens == reader.lengths.sum()
    assert metrics["train_bytes"] == sum(len(text.encode()) for text in TEXTS["train"])
    assert artifacts[1].file("train.bin").stat().st_size == 2 * reader.num_tokens


def test_shards_can_be_packed(artifacts: tuple[Artifact, Artifact]) -> None:
    reader = ShardReader(artifacts[1], "train")
    stream = PackedBatches(reader, row_length=64, batch_rows=4, seed=0, pad_id=1)
    rows = np.concatenate([next(stream).tokens_BT for _ in range(-(-stream.plan.num_rows // 4))])[
        : stream.plan.num_rows
    ]
    found = np.sort(rows[rows != 1])
    assert found.tolist() == sorted(id_ for index in range(len(reader)) for id_ in reader.tokens(index).tolist())


@pytest.mark.parametrize(("vocab_size", "width"), [(2**16, 2), (2**16 + 1, 4)])
def test_ids_take_two_bytes_while_they_fit(vocab_size: int, width: int) -> None:
    assert token_type(vocab_size).itemsize == width
    assert np.array([vocab_size - 1], dtype=token_type(vocab_size))[0] == vocab_size - 1


def test_a_truncated_shard_is_a_clear_error(artifacts: tuple[Artifact, Artifact], make_artifact: MakeArtifact) -> None:
    def copy_but_cut(stage: Stage) -> dict[str, int]:
        for name in artifacts[1].manifest["files"]:
            content = artifacts[1].file(name).read_bytes()
            (stage.folder / name).write_bytes(content[:-2] if name == "train.bin" else content)
        return {}

    with pytest.raises(ArtifactError, match=r"train\.bin: found \d+ bytes, wanted \d+ ids of uint16"):
        ShardReader(make_artifact("shards", copy_but_cut), "train")


def test_an_empty_split_is_a_clear_error(artifacts: tuple[Artifact, Artifact], make_artifact: MakeArtifact) -> None:
    def write_nothing(stage: Stage) -> dict[str, int]:
        ShardWriter(stage.folder, "validation", load_tokenizer(artifacts[0])).close()
        (stage.folder / "shards.json").write_bytes(artifacts[1].file("shards.json").read_bytes())
        return {}

    with pytest.raises(DataError, match="the validation split is empty"):
        ShardReader(make_artifact("shards", write_nothing), "validation")
