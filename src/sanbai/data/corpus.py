"""The stage that makes a corpus: cleaned documents in two splits, what was dropped, and the account of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from sanbai.data.cleaning import NUM_CLEANING_STEPS, CleanedCorpus, clean
from sanbai.data.documents import Document
from sanbai.data.recipe import DataRecipe
from sanbai.data.records import write_records
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import JsonlWriter, write_json_atomic
from sanbai.foundation.stage import Stage

#: Steps of the progress bar: cleaning, and writing.
NUM_CORPUS_STEPS = NUM_CLEANING_STEPS + 1


def build_corpus(stage: Stage, documents: Iterable[Document], recipe: DataRecipe) -> dict[str, Any]:
    """Clean and split documents; write the splits, the dropped ones and the report; return the numbers.

    Files: `train.jsonl.gz`, `validation.jsonl.gz` (documents), `dropped.jsonl.gz` (`id, rule, detail`, and the whole
    document for the first `examples_per_rule` of each rule), `tagged.jsonl.gz` (`id, tag`), `report.json`.

    Args:
        stage: receives the files, and the licence notes of what is kept.
        documents: read once, in any order.
        recipe: limits of every rule.

    Raises:
        DataError: nothing was read, or a split is empty.
        Interrupted: asked to stop; the stage begins anew next time, it takes seconds.
    """

    def on_step(number: int, kept: int) -> None:
        stage.run.record(number, documents=kept)
        stage.run.raise_if_stopping()

    corpus = clean(documents, recipe, on_step=on_step)
    if not corpus.validation:
        raise DataError(
            f"no document is held out of {len(corpus.train)}; give more documents or raise data.validation_share "
            f"above {recipe.validation_share}"
        )
    write_records(stage.folder / "train.jsonl.gz", corpus.train)
    write_records(stage.folder / "validation.jsonl.gz", corpus.validation)
    _write_dropped(stage, corpus, recipe.examples_per_rule)
    write_json_atomic(stage.folder / "report.json", corpus.report.to_row())
    kept = [*corpus.train, *corpus.validation]
    stage.licences.extend(sorted({document.licence for document in kept if document.licence}))
    stage.run.record(NUM_CORPUS_STEPS, documents=len(kept))
    report = corpus.report
    return {
        "read_documents": report.read.documents,
        "read_bytes": report.read.bytes,
        "train_documents": report.train.documents,
        "train_bytes": report.train.bytes,
        "validation_documents": report.validation.documents,
        "validation_bytes": report.validation.bytes,
        **{f"dropped_{rule}": tally.documents for rule, tally in report.dropped.items()},
    }


def _write_dropped(stage: Stage, corpus: CleanedCorpus, examples_per_rule: int) -> None:
    seen: Counter[str] = Counter()
    with JsonlWriter(stage.folder / "dropped.jsonl.gz") as writer:
        for dropped in corpus.dropped:
            seen[dropped.rule] += 1
            row: dict[str, Any] = {"id": dropped.document.id, "rule": dropped.rule, "detail": dropped.detail}
            if seen[dropped.rule] <= examples_per_rule:
                row["document"] = dropped.document.to_row()
            writer.write(row)
    with JsonlWriter(stage.folder / "tagged.jsonl.gz") as writer:
        for name in corpus.tagged:
            writer.write({"id": name, "tag": "insult"})
