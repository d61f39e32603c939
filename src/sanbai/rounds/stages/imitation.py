"""Imitating demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanbai.data.conversations import Conversation
from sanbai.data.records import write_records
from sanbai.data.shards import ShardReader
from sanbai.data.vocabulary import load_tokenizer
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.files import read_jsonl
from sanbai.foundation.stage import Stage
from sanbai.model.hugging_face import load_language_model
from sanbai.rounds.stages.stage_runner import StageRunner
from sanbai.rounds.stages.watching import watch_language
from sanbai.training.supervise import SuperviseRecipe, encode_demonstrations, num_supervise_steps, supervise


class ImitationStages(StageRunner):
    """The demonstrations, and the model that imitates them."""

    def demonstrations(self) -> Artifact:
        """Collect the demonstrations."""

        def build(stage: Stage) -> Mapping[str, Any]:
            return {
                "demonstrations": write_records(
                    stage.folder / "demonstrations.jsonl.gz", self.material.demonstrations()
                )
            }

        names = ("num_demonstrations", "demonstrations", "mixture_cap")
        inputs = {name: str(getattr(self.recipe, name)) for name in names}
        return self._run("demonstrations", "demonstrations", "world", self._source_sections(), {}, 1, build, inputs)

    def supervised(self, base: Artifact, shards: Artifact, demonstrations: Artifact) -> Artifact:
        """Fine-tune the base model on the demonstrations."""
        return self._imitate("supervise", self.recipe.supervise, base, shards, demonstrations)

    def _imitate(
        self, name: str, recipe: SuperviseRecipe, base: Artifact, shards: Artifact, demonstrations: Artifact
    ) -> Artifact:
        tokenizer = load_tokenizer(base)
        items = encode_demonstrations(tokenizer, read_demonstrations(demonstrations), row_length=recipe.row_length)

        def build(stage: Stage) -> Mapping[str, Any]:
            return supervise(
                stage,
                recipe,
                self.recipe.compute,
                model=load_language_model(base.path),
                tokenizer=tokenizer,
                items=items,
                pretraining=ShardReader(shards, "train"),
                evaluate=watch_language(self.recipe, base, shards),
                adapter=self.recipe.adapter,
            )

        sections = self._with_compute(supervise=recipe, adapter=self.recipe.adapter)
        parents = {"base": base, "shards": shards, "demonstrations": demonstrations}
        return self._run("model", name, "training", sections, parents, num_supervise_steps(recipe, items), build)


def read_demonstrations(artifact: Artifact) -> list[Conversation]:
    """Return the conversations of a demonstrations artifact."""
    path = artifact.file("demonstrations.jsonl.gz")
    return [Conversation.from_row(row, where=str(path)) for row in read_jsonl(path)]
