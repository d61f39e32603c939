from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sanbai.data.documents import Document
from sanbai.data.records import write_records
from sanbai.data.vocabulary import build_tokenizer, load_tokenizer, sample_texts
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import ArtifactError
from sanbai.foundation.stage import Stage
from sanbai.text.recipe import TokenizerRecipe

TRAIN = [f"Anna number {n} bakes bread in the mill." for n in range(60)]
VALIDATION = ["Bert bakes bread in the mill.", "村里 bread"]

MakeArtifact = Callable[..., Artifact]


def write_corpus(stage: Stage) -> dict[str, int]:
    for split, texts in (("train", TRAIN), ("validation", VALIDATION)):
        write_records(stage.folder / f"{split}.jsonl.gz", [Document(str(n), text) for n, text in enumerate(texts)])
    return {}


@pytest.fixture(scope="module")
def tokenizer(make_artifact: MakeArtifact) -> Artifact:
    corpus = make_artifact("corpus", write_corpus)
    recipe = TokenizerRecipe(vocab_size=280)
    return make_artifact("tokenizer", lambda stage: build_tokenizer(stage, corpus, recipe), parents={"corpus": corpus})


def test_the_artifact_is_a_hugging_face_folder(tokenizer: Artifact) -> None:
    assert set(tokenizer.manifest["files"]) == {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    }


def test_its_metrics_are_measured_on_held_out_text(tokenizer: Artifact) -> None:
    loaded = load_tokenizer(tokenizer)
    assert tokenizer.metrics["vocab_size"] == loaded.vocab_size == 280
    num_bytes = sum(len(text.encode()) for text in VALIDATION)
    num_tokens = sum(len(loaded.encode(text)) for text in VALIDATION)
    assert tokenizer.metrics["bytes_per_token"] == pytest.approx(num_bytes / num_tokens)


def test_an_altered_tokenizer_is_refused(tokenizer: Artifact, make_artifact: MakeArtifact) -> None:
    def copy(stage: Stage) -> dict[str, int]:
        (stage.folder / "tokenizer.json").write_bytes(tokenizer.file("tokenizer.json").read_bytes())
        return {}

    other = make_artifact("tokenizer", copy)
    (other.path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError):
        load_tokenizer(other)


def test_the_sample_ends_with_the_document_that_fills_it(tmp_path: Path) -> None:
    write_records(tmp_path / "d.jsonl", [Document(str(n), "12345678") for n in range(9)])
    assert len(list(sample_texts(tmp_path / "d.jsonl", 16))) == 2
    assert len(list(sample_texts(tmp_path / "d.jsonl", 17))) == 3
    assert len(list(sample_texts(tmp_path / "d.jsonl", 1000))) == 9
