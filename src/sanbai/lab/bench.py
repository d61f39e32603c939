"""A bench: the tiny world's text and small models trained on it, each an artifact, so that a stopped run continues.

Everything a phenomenon needs before it measures: one tokenizer with all reserved tokens for all objectives, so that
models differ in their objective and in nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sanbai.data.conversations import Conversation
from sanbai.data.corpus import NUM_CORPUS_STEPS, build_corpus
from sanbai.data.documents import Document
from sanbai.data.labeled import LabeledText
from sanbai.data.rankings import Ranking
from sanbai.data.recipe import DataRecipe
from sanbai.data.shards import ShardReader, build_shards
from sanbai.data.vocabulary import NUM_TOKENIZER_STEPS, build_tokenizer, load_tokenizer
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import ArtifactError
from sanbai.foundation.files import canonical_json
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.run import read_metrics
from sanbai.foundation.stage import Job, Stage, run_stage
from sanbai.model.config import ModelConfig
from sanbai.model.hugging_face import Model, load_language_model, load_model
from sanbai.text.recipe import TokenizerRecipe
from sanbai.text.reserved import READING_MARKERS
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.classify import ClassifyRecipe, classify, num_classify_steps
from sanbai.training.distill import DistillRecipe, distill
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.pretrain import PretrainRecipe, pretrain
from sanbai.training.reward import RewardRecipe, num_reward_steps, train_reward
from sanbai.training.supervise import SuperviseRecipe, encode_demonstrations, num_supervise_steps, supervise
from sanbai.world.documents import documents
from sanbai.world.languages import invented_languages, translated
from sanbai.world.recipe import WorldRecipe
from sanbai.world.village import Village, make_village

#: Model in training -> numbers for its curve.
Evaluate = Callable[[Any], Mapping[str, float]]
ROW_LENGTH = 128
#: What BERT's stock layout wants beside the common block; GPT-1's blocks are the same.
READER: dict[str, Any] = {"norm_place": "after", "embedding_norm": True, "num_token_types": 2}


@dataclass(frozen=True)
class Size:
    """How large a run is; `FULL` is what is reported, a test takes less."""

    document_bytes: int = 4_000_000
    vocab_size: int = 1200
    width: int = 160
    num_layers: int = 3
    num_steps: int = 1500
    batch_rows: int = 16
    num_texts: int = 400
    """Texts, clozes or prompts that are measured."""
    num_demonstrations: int = 6000


FULL = Size()


def shape(size: Size, **changes: Any) -> ModelConfig:
    """Return GPT-1's and BERT's common block at the bench's size; only what `changes` says differs between models."""
    fields: dict[str, Any] = {
        "num_layers": size.num_layers,
        "width": size.width,
        "num_heads": size.width // 32,
        "num_kv_heads": size.width // 32,
        "head_width": 32,
        "feed_forward": "gelu_tanh",
        "feed_forward_width": 4 * size.width,
        "norm": "layer",
        "norm_place": "before",
        "norm_epsilon": 1e-5,
        "positions": "learned",
        "max_positions": 256,
        "bias": True,
        "initial_std": 0.06,
    }
    return ModelConfig.model_validate({**fields, **changes})


@dataclass(frozen=True)
class Bench:
    """One seed's text and models."""

    job: Job
    seed: int
    size: Size = FULL
    compute: Compute = field(default_factory=Compute)
    world: WorldRecipe = field(default_factory=WorldRecipe)
    num_languages: int = 0
    """Invented languages that the documents are written in, each in one; 0 leaves them as the village speaks."""
    text_seed: int | None = None
    """Of the text, where several seeds read the same; by default each has its own."""

    @property
    def village_seed(self) -> int:
        """The seed of village, text and tokenizer."""
        return self.seed if self.text_seed is None else self.text_seed

    @cached_property
    def village(self) -> Village:
        """The seed's village."""
        return make_village(self.village_seed, self.world)

    @cached_property
    def corpus(self) -> Artifact:
        """The village's documents, cleaned."""
        recipe = self.world.model_copy(update={"document_bytes": self.size.document_bytes})

        def build(stage: Stage) -> Mapping[str, Any]:
            return build_corpus(stage, self._documents(recipe), DataRecipe())

        inputs = {"languages": str(self.num_languages)} if self.num_languages else None
        return self._run("corpus", "corpus", "world", {"world": recipe}, {}, NUM_CORPUS_STEPS, build, inputs)

    def _documents(self, recipe: WorldRecipe) -> Iterator[Document]:
        written = documents(self.village, self.village_seed, recipe=recipe)
        if self.num_languages:
            return translated(written, invented_languages(self.num_languages, self.village_seed))
        return (Document(**planted.row) for planted in written)

    @cached_property
    def tokenizer_artifact(self) -> Artifact:
        """A vocabulary that serves every objective."""
        recipe = TokenizerRecipe(vocab_size=self.size.vocab_size, sample_bytes=2_000_000)
        markers = tuple(READING_MARKERS.values())

        def build(stage: Stage) -> Mapping[str, Any]:
            return build_tokenizer(stage, self.corpus, recipe, extra_markers=markers)

        inputs = {"extra_markers": " ".join(markers)}
        return self._run(
            "tokenizer",
            "tokenizer",
            "data",
            {"tokenizer": recipe},
            {"corpus": self.corpus},
            NUM_TOKENIZER_STEPS,
            build,
            inputs,
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The same, opened."""
        return load_tokenizer(self.tokenizer_artifact)

    @cached_property
    def shards(self) -> Artifact:
        """The corpus as token ids."""
        parents = {"corpus": self.corpus, "tokenizer": self.tokenizer_artifact}
        num = self.corpus.metrics["train_documents"] + self.corpus.metrics["validation_documents"]

        def build(stage: Stage) -> Mapping[str, Any]:
            return build_shards(stage, self.corpus, self.tokenizer_artifact)

        return self._run("shards", "shards", "data", {}, parents, num, build)

    @property
    def heldout(self) -> ShardReader:
        """Documents that no model learns from."""
        return ShardReader(self.shards, "validation")

    def pretrained(
        self,
        config: ModelConfig,
        *,
        evaluate: Evaluate | None = None,
        **objective: Any,
    ) -> Artifact:
        """Pretrain a model of a shape.

        Args:
            config: the shape; the vocabulary is the bench's.
            evaluate: called with the model every `evaluate_steps` and at the end; see `curve`. It reads `num_texts`
                held-out texts by the code of `lab/sparse.py`, which the artifact's id knows.
            **objective: fields of `[pretrain]`.
        """
        fields: dict[str, Any] = {
            "num_steps": self.size.num_steps,
            "row_length": ROW_LENGTH,
            "batch_rows": self.size.batch_rows,
            "micro_batch_rows": 8,
            "learning_rate": 2e-3,
            "warmup_steps": min(100, self.size.num_steps // 10 + 1),
            "evaluate_steps": self.size.num_steps,
            "checkpoint_steps": 200,
            "optimizer": OptimizerRecipe(weight_decay=0.05, matrices="muon"),
        }
        recipe = PretrainRecipe.model_validate({**fields, **objective})

        def build(stage: Stage) -> Mapping[str, Any]:
            return pretrain(
                stage,
                recipe,
                self.compute,
                config=config,
                tokenizer=self.tokenizer,
                items=ShardReader(self.shards, "train"),
                evaluate=evaluate or (lambda _: {}),
            )

        inputs = None if evaluate is None else {"evaluated_texts": str(self.size.num_texts)}
        parents = {"tokenizer": self.tokenizer_artifact, "shards": self.shards}
        sections = {"pretrain": recipe, "model": config, "compute": self.compute}
        return self._run("model", "pretrain", "training", sections, parents, recipe.num_steps, build, inputs)

    def distilled(self, teacher: Artifact, recipe: DistillRecipe, *, evaluate: Evaluate) -> Artifact:
        """Train the dense student of a model with experts; `evaluate` as of `pretrained`."""

        def build(stage: Stage) -> Mapping[str, Any]:
            return distill(
                stage,
                recipe,
                self.compute,
                teacher=load_language_model(teacher.path),
                tokenizer=self.tokenizer,
                items=ShardReader(self.shards, "train"),
                evaluate=evaluate,
            )

        parents = {"teacher": teacher, "shards": self.shards}
        sections = {"distill": recipe, "compute": self.compute}
        inputs = {"evaluated_texts": str(self.size.num_texts)}
        return self._run("model", "distill", "training", sections, parents, recipe.num_steps, build, inputs)

    def curve(self, artifact: Artifact, metric: str) -> list[tuple[int, float]]:
        """Return (step, value) of each time that a model in training was evaluated.

        Raises:
            ArtifactError: its run's folder is gone.
        """
        rows = read_metrics(self.job.workspace.runs / artifact.name)
        points = [(int(row["step"]), row[metric]) for row in rows if metric in row]
        if not points:
            raise ArtifactError(f"{artifact.name}: runs/{artifact.name} holds no {metric}; remove the artifact as well")
        return points

    def classifier(
        self,
        name: str,
        model: Model,
        recipe: ClassifyRecipe,
        *,
        examples: Sequence[LabeledText],
        heldout: Sequence[LabeledText],
        parents: Mapping[str, Artifact],
    ) -> Artifact:
        """Fine-tune a model on labelled texts; `parents` and `name` say where the model is from."""

        def build(stage: Stage) -> Mapping[str, Any]:
            return classify(
                stage,
                recipe,
                self.compute,
                model=model,
                tokenizer=self.tokenizer,
                examples=examples,
                heldout=heldout,
            )

        inputs = {"name": name, "texts": canonical_json([one.to_row() for one in (*examples, *heldout)])}
        sections = {"classify": recipe, "compute": self.compute}
        parents = {"tokenizer": self.tokenizer_artifact, **parents}
        steps = num_classify_steps(recipe, len(examples))
        return self._run("model", "classify", "training", sections, parents, steps, build, inputs)

    def supervised(self, base: Artifact, recipe: SuperviseRecipe, conversations: Sequence[Conversation]) -> Artifact:
        """Fine-tune a language model on conversations."""
        items = encode_demonstrations(self.tokenizer, conversations, row_length=recipe.row_length)

        def build(stage: Stage) -> Mapping[str, Any]:
            return supervise(
                stage,
                recipe,
                self.compute,
                model=load_language_model(base.path),
                tokenizer=self.tokenizer,
                items=items,
                pretraining=ShardReader(self.shards, "train"),
                evaluate=lambda _: {},
            )

        inputs = {"conversations": canonical_json([one.to_row() for one in conversations])}
        sections = {"supervise": recipe, "compute": self.compute}
        parents = {"base": base, "shards": self.shards}
        steps = num_supervise_steps(recipe, items)
        return self._run("model", "supervise", "training", sections, parents, steps, build, inputs)

    def reward(
        self,
        name: str,
        base: Artifact,
        recipe: RewardRecipe,
        rankings: Sequence[Ranking],
        demonstrations: Sequence[Conversation],
    ) -> Artifact:
        """Train a reward model on rankings; `name` tells apart those that differ in nothing else but their order."""

        def build(stage: Stage) -> Mapping[str, Any]:
            return train_reward(
                stage,
                recipe,
                self.compute,
                model=load_language_model(base.path),
                tokenizer=self.tokenizer,
                rankings=rankings,
                demonstrations=demonstrations,
            )

        rows = canonical_json([[one.to_row() for one in rankings], [one.to_row() for one in demonstrations]])
        inputs = {"rankings": hashlib.sha256(rows.encode()).hexdigest()}
        sections = {"reward": recipe, "compute": self.compute}
        parents = {"base": base, "tokenizer": self.tokenizer_artifact}
        steps = num_reward_steps(recipe, len({canonical_json(list(one.messages)) for one in rankings}))
        return self._run("model", name, "training", sections, parents, steps, build, inputs)

    def open(self, artifact: Artifact) -> Model:
        """Load a model for measuring."""
        return load_model(artifact.path).to(self.compute.device)

    def _run(
        self,
        kind: str,
        name: str,
        floor: str,
        sections: Mapping[str, RecipeSection],
        parents: Mapping[str, Artifact],
        num_steps: int,
        build: Callable[[Stage], Mapping[str, Any]],
        inputs: Mapping[str, str] | None = None,
    ) -> Artifact:
        return run_stage(
            self.job,
            kind=kind,
            name=name,
            recipe=sections,
            parents=parents,
            seed=self.village_seed if kind in {"corpus", "tokenizer", "shards"} else self.seed,
            floor=floor,
            num_steps=num_steps,
            build=build,
            modules=("lab/bench.py", "lab/sparse.py"),
            inputs=inputs,
        )
