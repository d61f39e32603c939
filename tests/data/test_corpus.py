from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product

import pytest

from sanbai.data.corpus import build_corpus
from sanbai.data.documents import Document, DocumentSource, read_documents
from sanbai.data.recipe import DataRecipe
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import read_jsonl

DOCUMENTS = [
    Document(f"d{n}", f"{name} {verb} {thing} near the old mill on day {n}.", "village", "CC0", "en")
    for n, (name, verb, thing) in enumerate(
        product(
            ["Anna", "Bert", "Clara", "David"], ["bakes", "sells", "finds", "paints"], ["bread", "apples", "a boat"]
        )
    )
]
DIRT = [Document(f"short{n}", "Too short.", licence="secret") for n in range(5)] + [Document("copy", DOCUMENTS[0].text)]
RECIPE = DataRecipe(validation_share=0.3, examples_per_rule=2)

MakeArtifact = Callable[..., Artifact]


@pytest.fixture(scope="module")
def corpus(make_artifact: MakeArtifact) -> Artifact:
    return make_artifact(
        "corpus", lambda stage: build_corpus(stage, [*DOCUMENTS, *DIRT], RECIPE), recipe={"data": RECIPE}
    )


def rows(corpus: Artifact, name: str) -> list[dict[str, object]]:
    return list(read_jsonl(corpus.file(name)))


def test_the_splits_hold_every_clean_document_once(corpus: Artifact) -> None:
    names = [row["id"] for split in ("train", "validation") for row in rows(corpus, f"{split}.jsonl.gz")]
    assert len(names) == len(set(names)) == len(DOCUMENTS)
    assert len(rows(corpus, "validation.jsonl.gz")) == corpus.metrics["validation_documents"] > 5


def test_the_corpus_reads_back_as_documents(corpus: Artifact) -> None:
    documents = read_documents(corpus.path, [DocumentSource(path="train.jsonl.gz")])
    assert all(document in DOCUMENTS or document.id == "copy" for document in documents)


def test_dropped_documents_are_named_and_some_kept_as_examples(corpus: Artifact) -> None:
    dropped = rows(corpus, "dropped.jsonl.gz")
    assert sorted(str(row["rule"]) for row in dropped) == ["duplicate"] + ["length"] * 5
    assert sum("document" in row for row in dropped if row["rule"] == "length") == 2
    assert all(row["detail"] for row in dropped)


def test_the_report_counts_what_the_files_hold(corpus: Artifact) -> None:
    report = json.loads(corpus.file("report.json").read_text())
    train = rows(corpus, "train.jsonl.gz")
    assert report["train"] == {
        "documents": len(train),
        "bytes": sum(len(str(row["text"]).encode()) for row in train),
    }
    assert report["read"]["documents"] == len(DOCUMENTS) + len(DIRT)
    assert report["dropped"]["length"] == {"documents": 5, "bytes": 5 * len("Too short.")}
    assert corpus.metrics["dropped_duplicate"] == 1


def test_licences_of_kept_documents_enter_the_manifest(corpus: Artifact) -> None:
    assert corpus.manifest["licences"] == ["CC0"]


def test_the_files_do_not_depend_on_the_order_of_the_input(corpus: Artifact, make_artifact: MakeArtifact) -> None:
    other = make_artifact("corpus", lambda stage: build_corpus(stage, reversed([*DOCUMENTS, *DIRT]), RECIPE))
    assert other.manifest["files"] == corpus.manifest["files"]


def test_a_corpus_without_held_out_documents_is_a_clear_error(make_artifact: MakeArtifact) -> None:
    recipe = DataRecipe(validation_share=1e-9)
    with pytest.raises(DataError, match=r"no document is held out of 48; give more documents or raise"):
        make_artifact("corpus", lambda stage: build_corpus(stage, DOCUMENTS, recipe))
