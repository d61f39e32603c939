"""Models beside the round: a dense student of the base, a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanbai.data.labeled import LabeledText, classes_of
from sanbai.data.records import write_records
from sanbai.data.shards import ShardReader
from sanbai.data.vocabulary import load_tokenizer
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.files import read_jsonl
from sanbai.foundation.stage import Stage
from sanbai.model.hugging_face import StoredModel, load_language_model, load_model
from sanbai.rounds.stages.ancestry import check_rows
from sanbai.rounds.stages.stage_runner import StageRunner
from sanbai.rounds.stages.watching import watch_language
from sanbai.training.classify import check_classes, classify, num_classify_steps
from sanbai.training.distill import distill


class OffshootStages(StageRunner):
    """What else is made of a base model."""

    def student(self, teacher: Artifact, shards: Artifact) -> Artifact:
        """Distil a model with experts into a dense one.

        Raises:
            UsageError: the recipe's rows are longer than the context of a model to start from.
        """
        recipe = self.recipe.distill
        if self.start is not None:
            check_rows(
                self.start, StoredModel.open(self.start.path).model.config, {"distill.row_length": recipe.row_length}
            )

        def build(stage: Stage) -> Mapping[str, Any]:
            return distill(
                stage,
                recipe,
                self.recipe.compute,
                teacher=load_language_model(teacher.path),
                tokenizer=load_tokenizer(teacher),
                items=ShardReader(shards, "train"),
                evaluate=watch_language(self.recipe, teacher, shards),
            )

        parents = {"teacher": teacher, "shards": shards}
        sections = self._with_compute(distill=recipe)
        return self._run("model", "distill", "training", sections, parents, recipe.num_steps, build)

    def labeled(self) -> Artifact:
        """Collect the texts with classes."""

        def build(stage: Stage) -> Mapping[str, Any]:
            splits = self.material.labeled()
            check_classes(splits.heldout, classes_of(splits.train))
            return {
                "train": write_records(stage.folder / "train.jsonl.gz", splits.train),
                "heldout": write_records(stage.folder / "heldout.jsonl.gz", splits.heldout),
            }

        inputs = {name: str(getattr(self.recipe, name)) for name in ("num_examples", "num_heldout_examples")}
        return self._run("labeled", "labeled", "world", self._source_sections(), {}, 1, build, inputs)

    def classifier(self, base: Artifact, labeled: Artifact) -> Artifact:
        """Fine-tune the base model on texts with classes."""
        recipe = self.recipe.classify
        train, heldout = (read_labeled_records(labeled, split) for split in ("train", "heldout"))

        def build(stage: Stage) -> Mapping[str, Any]:
            return classify(
                stage,
                recipe,
                self.recipe.compute,
                model=load_model(base.path),
                tokenizer=load_tokenizer(base),
                examples=train,
                heldout=heldout,
                adapter=self.recipe.adapter,
            )

        sections = self._with_compute(classify=recipe, adapter=self.recipe.adapter)
        parents = {"base": base, "labeled": labeled}
        return self._run(
            "model", "classify", "training", sections, parents, num_classify_steps(recipe, len(train)), build
        )


def read_labeled_records(artifact: Artifact, split: str) -> list[LabeledText]:
    """Return the texts of a labelled artifact's split."""
    path = artifact.file(f"{split}.jsonl.gz")
    return [LabeledText.from_row(row, where=str(path)) for row in read_jsonl(path)]
