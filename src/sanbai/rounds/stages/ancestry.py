"""From documents to a base model: what every round shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanbai.data.corpus import NUM_CORPUS_STEPS, build_corpus
from sanbai.data.shards import ShardReader, build_shards
from sanbai.data.vocabulary import NUM_TOKENIZER_STEPS, build_tokenizer, load_tokenizer
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import ModelError, UsageError
from sanbai.foundation.stage import Stage
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import StoredModel
from sanbai.rounds.recipe import Recipe
from sanbai.rounds.stages.stage_runner import StageRunner
from sanbai.rounds.stages.watching import watch_language, watch_objective
from sanbai.text.chat_template import SMALLEST_PROMPT, prompt_room
from sanbai.training.objective import objective_markers
from sanbai.training.pretrain import pretrain


class AncestryStages(StageRunner):
    """Corpus, tokenizer, shards and the base model."""

    def corpus(self) -> Artifact:
        """Collect, clean and split the documents."""

        def build(stage: Stage) -> Mapping[str, Any]:
            return build_corpus(stage, self.material.documents(), self.recipe.data)

        return self._run("corpus", "corpus", "world", self._source_sections("data"), {}, NUM_CORPUS_STEPS, build)

    def tokenizer(self, corpus: Artifact) -> Artifact:
        """Learn the vocabulary; a model to start from brings its own."""
        if self.start is not None:
            return self.start

        def build(stage: Stage) -> Mapping[str, Any]:
            return build_tokenizer(stage, corpus, self.recipe.tokenizer, extra_markers=markers)

        markers = objective_markers(self.recipe.pretrain.objective)
        inputs = {"extra_markers": " ".join(markers)} if markers else None
        sections = {"tokenizer": self.recipe.tokenizer}
        return self._run(
            "tokenizer", "tokenizer", "data", sections, {"corpus": corpus}, NUM_TOKENIZER_STEPS, build, inputs
        )

    def shards(self, corpus: Artifact, tokenizer: Artifact) -> Artifact:
        """Encode the corpus."""

        def build(stage: Stage) -> Mapping[str, Any]:
            return build_shards(stage, corpus, tokenizer)

        parents = {"corpus": corpus, "tokenizer": tokenizer}
        num_documents = corpus.metrics["train_documents"] + corpus.metrics["validation_documents"]
        return self._run("shards", "shards", "data", {}, parents, num_documents, build)

    def base(self, tokenizer: Artifact, shards: Artifact) -> Artifact:
        """Pretrain the base model, where there is none to start from."""
        if self.start is not None:
            return self.start
        recipe = self.recipe.pretrain

        def build(stage: Stage) -> Mapping[str, Any]:
            return pretrain(
                stage,
                recipe,
                self.recipe.compute,
                config=self.recipe.model,
                tokenizer=load_tokenizer(tokenizer),
                items=ShardReader(shards, "train"),
                evaluate=watch_language(self.recipe, tokenizer, shards)
                if recipe.objective == "causal"
                else watch_objective(self.recipe, self.material, tokenizer, shards),
                names=self.material.names() if recipe.objective == "entity_masked" else (),
            )

        sections = self._with_compute(pretrain=recipe, model=self.recipe.model)
        if recipe.objective == "entity_masked":
            sections |= self._source_sections()
        parents = {"tokenizer": tokenizer, "shards": shards}
        return self._run("model", "pretrain", "training", sections, parents, recipe.num_steps, build)


def check_start(start: Artifact, recipe: Recipe, *, practises: bool) -> None:
    """Refuse a model that an assistant cannot be made from, and rows that it cannot read, before anything is computed.

    Args:
        start: the model.
        recipe: what it is trained by.
        practises: whether a reward model and practice follow.

    Raises:
        ModelError: it is no language model.
        ArtifactError: it has no tokenizer.
        UsageError: rows are too long.
    """
    stored = StoredModel.open(start.path)
    if not isinstance(stored.model, LanguageModel):
        raise ModelError(f"{start.name}: {stored.kind}, wanted a language model to make an assistant from")
    load_tokenizer(start)
    lengths = {"supervise.row_length": recipe.supervise.row_length}
    if practises and recipe.material == "files":
        answered = recipe.reward.max_prompt_tokens + recipe.reward.max_response_tokens + 1
        lengths |= {
            "reward.max_prompt_tokens, reward.max_response_tokens and the end mark together:": answered,
            "ppo.ptx_row_length": recipe.ppo.ptx_row_length,
        }
    check_rows(start, stored.model.config, lengths)


def check_answers(start: Artifact | None, recipe: Recipe, lengths: Mapping[str, int]) -> None:
    """Refuse answers beside which the model has no room for a prompt, before anything is computed.

    Args:
        start: the model that answers, or that the one is made from; None: the recipe's.
        recipe: of the model.
        lengths: of the longest answers, by the recipe's fields.

    Raises:
        UsageError: so they are.
    """
    context, smallest = recipe.model.max_positions, SMALLEST_PROMPT
    if start is not None:
        context = StoredModel.open(start.path).model.config.max_positions
        smallest = load_tokenizer(start).turns.smallest_prompt
    for field, length in lengths.items():
        prompt_room(context, length, field=field, smallest=smallest)


def check_rows(start: Artifact, config: ModelConfig, lengths: Mapping[str, int]) -> None:
    """Refuse rows that a model cannot read.

    Args:
        start: the model.
        config: its shape.
        lengths: of rows, by the recipe's fields.

    Raises:
        UsageError: so they are.
    """
    for name, length in lengths.items():
        if config.bounded and length > config.max_positions:
            raise UsageError(f"{name} {length} is above the {config.max_positions} positions of {start.name}; lower it")
