"""The stages of a round, each from its parents to its artifact; asking again for one that exists costs nothing.

Nothing here trains or measures: each method opens artifacts, hands them to the floor below and names what comes out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np

from sanbai.data.attributes import rated_answers
from sanbai.data.conversations import Conversation
from sanbai.data.corpus import NUM_CORPUS_STEPS, build_corpus
from sanbai.data.labeled import LabeledText, classes_of
from sanbai.data.rankings import Ranking
from sanbai.data.records import write_records
from sanbai.data.shards import ShardReader, build_shards
from sanbai.data.thumbs import ThumbedAnswer
from sanbai.data.vocabulary import NUM_TOKENIZER_STEPS, build_tokenizer, load_tokenizer
from sanbai.evaluation.answers import Contestant, chat_contestant, transcript_contestant
from sanbai.evaluation.disagreement import disagreement
from sanbai.evaluation.language import bits_per_byte, heldout_documents
from sanbai.evaluation.mistakes import confident_mistakes
from sanbai.evaluation.models import STEPS_A_MODEL, Context, HeldOut, evaluate_models
from sanbai.evaluation.reliability import is_right
from sanbai.evaluation.reward_accuracy import (
    labeler_agreement,
    margins,
    reward_accuracy,
    reward_model_entry,
    strict_pairs,
)
from sanbai.evaluation.statistics import bootstrap_mean
from sanbai.evaluation.village_choices import village_choice_tasks
from sanbai.feedback.accounts import MODEL_PREFIX
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import DataError, ModelError, UsageError
from sanbai.foundation.files import canonical_json, read_jsonl
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.run import read_metrics
from sanbai.foundation.seeds import derive_seed
from sanbai.foundation.stage import Build, Job, Stage, run_stage
from sanbai.model.adapters.shared import copy_learning
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import StoredModel, load_language_model, load_model
from sanbai.rounds.material import Material, Purpose, WorldMaterial
from sanbai.rounds.model_labeler import buckets_of, count_teachers, is_model
from sanbai.rounds.panel import RankingsByUse
from sanbai.rounds.recipe import Recipe
from sanbai.rounds.tasks import LabelRecipe, Task, choose_informative, num_task_steps, sample_tasks
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.classify import check_classes, classify, num_classify_steps
from sanbai.training.direct import num_direct_steps, train_direct
from sanbai.training.distill import distill
from sanbai.training.expert_iteration import iterate_experts
from sanbai.training.group import train_group
from sanbai.training.objective import NUM_WATCHED_ROWS, Pretrained, measure, objective_markers, open_batches
from sanbai.training.players import Players, load_adapted_players, load_players
from sanbai.training.ppo import train_ppo
from sanbai.training.practice import PracticeRecipe
from sanbai.training.pretrain import pretrain
from sanbai.training.reject import keep_best, num_reject_steps
from sanbai.training.reward import num_reward_steps, train_reward
from sanbai.training.reward_model import load_reward_model
from sanbai.training.self_judge import num_self_judge_steps, train_self_judge
from sanbai.training.supervise import SuperviseRecipe, encode_demonstrations, num_supervise_steps, supervise
from sanbai.world.oracle import judge as judge_answer

#: What lies above the stages' floors and decides what they are given.
MODULES = ("rounds/material.py", "rounds/model_labeler.py", "rounds/pipeline.py", "rounds/tasks.py")
#: Held-out documents that a stage in training is measured on; the final evaluation reads more.
NUM_WATCHED_DOCUMENTS = 64
#: Demonstrations whose mean reward is set to 0.
NUM_CALIBRATION_DEMONSTRATIONS = 1000
#: Different prompts that a policy practises on, again and again; InstructGPT's had 31,144.
NUM_PRACTICE_PROMPTS = 31_144
#: Held-out prompts that the second judge watches.
NUM_WATCHED_PROMPTS = 256


@dataclass(frozen=True)
class TaughtJudges:
    """A round's reward model and second judge.

    Attributes:
        reward: what practice is rewarded by.
        judge: the second one, whose disagreement with the first is measured.
        rankings: those of held-out labelers measure; among those that the reward model was taught by, models' are
            counted apart.
    """

    reward: Artifact
    judge: Artifact
    rankings: RankingsByUse

    @property
    def measured_by(self) -> list[Ranking]:
        """The rankings that the figures depend on."""
        return [*self.rankings.training, *self.rankings.heldout]


@dataclass(frozen=True)
class Pipeline:
    """One recipe at work in one workspace."""

    job: Job
    recipe: Recipe
    material: Material
    start: Artifact | None = None
    """The model to start from, tokenizer included; where there is none, both are made."""

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
                evaluate=self.watch_language(tokenizer, shards)
                if recipe.objective == "causal"
                else self.watch_objective(tokenizer, shards),
                names=self.material.names() if recipe.objective == "entity_masked" else (),
            )

        sections = self._with_compute(pretrain=recipe, model=self.recipe.model)
        if recipe.objective == "entity_masked":
            sections |= self._source_sections()
        parents = {"tokenizer": tokenizer, "shards": shards}
        return self._run("model", "pretrain", "training", sections, parents, recipe.num_steps, build)

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
                evaluate=self.watch_language(base, shards),
                adapter=self.recipe.adapter,
            )

        sections = self._with_compute(supervise=recipe, adapter=self.recipe.adapter)
        parents = {"base": base, "shards": shards, "demonstrations": demonstrations}
        return self._run("model", name, "training", sections, parents, num_supervise_steps(recipe, items), build)

    def student(self, teacher: Artifact, shards: Artifact) -> Artifact:
        """Distil a model with experts into a dense one.

        Raises:
            UsageError: the recipe's rows are longer than the context of a model to start from.
        """
        recipe = self.recipe.distill
        if self.start is not None:
            _check_rows(
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
                evaluate=self.watch_language(teacher, shards),
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

    def tasks(self, policy: Artifact, *, round: int) -> Artifact:  # noqa: A002 - the field's own word
        """Sample the answers that simulated labelers of a round rank."""
        recipe = self.recipe.label
        wanted: dict[Purpose, int] = {"label": recipe.num_prompts, "label-heldout": recipe.num_heldout_prompts}
        return self._sample("sample answers", policy, recipe, wanted, round=round)

    def open_tasks(
        self,
        policy: Artifact,
        reward: Artifact,
        rankings: Sequence[Ranking],
        *,
        round: int,  # noqa: A002
    ) -> Artifact:
        """Sample the answers that people may rank before a round, all of them to the prompt they stand under.

        Args:
            policy: the model that answers.
            reward: the model that would be taught most, where tasks are chosen by expected gain.
            rankings: what it was taught by.
            round: the one to come.
        """
        recipe = self.recipe.label.model_copy(update={"num_foreign_answers": 0})
        number = recipe.num_open_prompts
        if recipe.open_choice == "any":
            return self._sample("sample open answers", policy, recipe, {"people": number}, round=round)

        def choose(tasks: Sequence[Task]) -> list[Task]:
            return choose_informative(
                tasks,
                load_reward_model(reward.path, self.recipe.compute),
                load_tokenizer(reward),
                rankings,
                num_tasks=number,
                num_answers=recipe.open_answers,
            )

        return self._sample(
            "sample open answers",
            policy,
            recipe,
            {"people": number * recipe.open_candidates},
            round=round,
            choose=choose,
            parents={"reward": reward},
            inputs={"rankings": _digest(rankings)},
        )

    def _sample(
        self,
        name: str,
        policy: Artifact,
        recipe: LabelRecipe,
        wanted: Mapping[Purpose, int],
        *,
        round: int,  # noqa: A002
        choose: Callable[[Sequence[Task]], Sequence[Task]] | None = None,
        parents: Mapping[str, Artifact] | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> Artifact:

        def build(stage: Stage) -> Mapping[str, Any]:
            asked = {purpose: self.material.prompts(purpose, num, round=round) for purpose, num in wanted.items()}
            return sample_tasks(
                stage,
                recipe,
                self.recipe.compute,
                model=load_language_model(policy.path),
                tokenizer=load_tokenizer(policy),
                prompts=[prompt for purpose, found in asked.items() for prompt in found if purpose != "label-heldout"],
                heldout_prompts=asked.get("label-heldout", []),
                choose=choose,
            )

        return self._run(
            "tasks",
            name,
            "generation" if choose is None else "training",
            self._source_sections("label", "compute"),
            {"policy": policy, **(parents or {})},
            num_task_steps(recipe, sum(wanted.values())),
            build,
            inputs={"round": str(round), **(inputs or {})},
        )

    def reward(
        self, name: str, supervised: Artifact, snapshot: Artifact, demonstrations: Artifact, rankings: Sequence[Ranking]
    ) -> Artifact:
        """Train a reward model on some rankings of a snapshot.

        Args:
            name: `reward`, or `judge` for the one that watches the first.
            supervised: the model whose trunk it starts from.
            snapshot: where the rankings are from.
            demonstrations: their mean reward becomes 0.
            rankings: the ones that this model may see.
        """
        recipe = self.recipe.reward
        tokenizer = load_tokenizer(supervised)

        def build(stage: Stage) -> Mapping[str, Any]:
            return train_reward(
                stage,
                recipe,
                self.recipe.compute,
                model=load_language_model(supervised.path),
                tokenizer=tokenizer,
                rankings=rankings,
                demonstrations=_short_demonstrations(demonstrations, tokenizer, max_tokens=recipe.max_response_tokens),
                adapter=self.recipe.adapter,
            )

        sections = self._with_compute(reward=recipe, adapter=self.recipe.adapter)
        parents = {"supervised": supervised, "snapshot": snapshot, "demonstrations": demonstrations}
        num_steps = num_reward_steps(recipe, _num_training_prompts(rankings, recipe.validation_share))
        inputs = {"rankings": _digest(rankings)}
        return self._run("model", name, "training", sections, parents, num_steps, build, inputs)

    def direct(
        self,
        start: Artifact,
        snapshots: Mapping[str, Artifact],
        rankings: Sequence[Ranking],
        thumbs: Sequence[ThumbedAnswer] = (),
    ) -> Artifact:
        """Fit a model that answers, which is also the reference, to some rankings and thumbs, without a judge.

        Args:
            start: the model.
            snapshots: where the rankings and thumbs are from, by role.
            rankings: the ones that this model may see.
            thumbs: the same.
        """
        recipe, adapter = self.recipe.direct, self.recipe.adapter

        def build(stage: Stage) -> Mapping[str, Any]:
            return train_direct(
                stage,
                recipe,
                self.recipe.compute,
                policy=load_language_model(start.path),
                tokenizer=load_tokenizer(start),
                rankings=rankings,
                thumbs=thumbs,
                adapter=adapter,
            )

        sections = self._with_compute(direct=recipe, adapter=adapter)
        num_steps = num_direct_steps(recipe, _num_training_prompts([*rankings, *thumbs], recipe.validation_share))
        parents = {"start": start, **snapshots}
        inputs = {"rankings": _digest(rankings), **({"thumbs": _digest(thumbs)} if thumbs else {})}
        return self._run("model", "direct", "training", sections, parents, num_steps, build, inputs)

    def best_answers(self, policy: Artifact, reward: Artifact, judge: Artifact) -> Artifact:
        """Answer prompts several times and keep what the reward model likes best, as demonstrations.

        Raises:
            UsageError: a judge has another vocabulary than the policy.
        """
        recipe, compute = self.recipe.reject, self.recipe.compute
        check_vocabulary(policy, {"reward model": reward, "second judge": judge})
        prompts = self.material.prompts("practise", recipe.num_prompts)

        def build(stage: Stage) -> Mapping[str, Any]:
            model = load_language_model(policy.path)
            return keep_best(
                stage,
                recipe,
                compute,
                policy=model,
                reward=load_reward_model(reward.path, compute),
                judge=load_reward_model(judge.path, compute),
                tokenizer=load_tokenizer(policy),
                prompts=prompts,
                max_prompt_tokens=self._prompt_room(model, recipe.max_new_tokens),
            )

        # How they are imitated afterwards changes no answer.
        drawn_by = recipe.model_copy(update={"supervise": SuperviseRecipe()})
        sections = {**self._source_sections("compute"), "reject": drawn_by}
        parents = {"policy": policy, "reward": reward, "judge": judge}
        num_steps = num_reject_steps(recipe, len(prompts))
        inputs = {"max_prompt_tokens": str(self.recipe.reward.max_prompt_tokens)}
        return self._run("demonstrations", "best answers", "training", sections, parents, num_steps, build, inputs)

    def rejected(self, policy: Artifact, shards: Artifact, best: Artifact) -> Artifact:
        """Let a model imitate the best of its own answers: one step of expert iteration."""
        return self._imitate("reject", self.recipe.reject.supervise, policy, shards, best)

    def policy(
        self,
        start: Artifact,
        reward: Artifact,
        judge: Artifact,
        shards: Artifact,
        *,
        round: int,  # noqa: A002 - the field's own word
    ) -> Artifact:
        """Practise: PPO from the serving model, which is also the reference, against the round's reward model."""
        recipe, compute = self.recipe.ppo, self.recipe.compute

        def train(stage: Stage, players: Players, **given: Any) -> Mapping[str, Any]:
            return train_ppo(stage, recipe, compute, value=copy_learning(players.reward.model), **given)

        return self._practise("ppo", recipe, train, start, reward, judge, shards, round=round)

    def practised(
        self,
        name: Literal["group", "expert_iteration"],
        start: Artifact,
        reward: Artifact,
        judge: Artifact,
        shards: Artifact,
        *,
        round: int,  # noqa: A002
    ) -> Artifact:
        """Practise as `policy`, in another way and without a value model; `name` is its section."""

        def train(stage: Stage, _: Players, **given: Any) -> Mapping[str, Any]:
            compute = self.recipe.compute
            if name == "group":
                return train_group(stage, self.recipe.group, compute, **given)
            return iterate_experts(stage, self.recipe.expert_iteration, compute, **given)

        return self._practise(name, getattr(self.recipe, name), train, start, reward, judge, shards, round=round)

    def _practise(
        self,
        name: str,
        recipe: PracticeRecipe,
        train: Callable[..., Mapping[str, Any]],
        start: Artifact,
        reward: Artifact,
        judge: Artifact,
        shards: Artifact,
        *,
        round: int,  # noqa: A002
    ) -> Artifact:
        """Run a stage that practises, `name` its section too, on the prompts of a round.

        With LoRA, over the weights that the reward model was trained over.

        Raises:
            UsageError: a judge has another vocabulary than the policy.
        """
        check_vocabulary(start, {"reward model": reward, "second judge": judge})

        parents = {"start": start, "reward": reward, "judge": judge, "shards": shards}
        adapter, compute = self.recipe.adapter, self.recipe.compute
        if adapter.method != "none":
            parents["base"] = self.job.workspace.load(reward.manifest["parents"].get("supervised", start.name))

        def build(stage: Stage) -> Mapping[str, Any]:
            adapted, tokenizer = "base" in parents, load_tokenizer(start)
            players = load_adapted_players(stage, adapter, compute) if adapted else load_players(stage, compute)
            room = self._prompt_room(players.policy, recipe.max_new_tokens)

            def encoded(purpose: Purpose, num: int) -> list[list[int]]:
                prompts = self.material.prompts(purpose, num, round=round)
                return [encode_prompt(tokenizer, prompt.messages, max_tokens=room) for prompt in prompts]

            return train(
                stage,
                players,
                policy=players.policy,
                reward=players.reward,
                judge=players.judge,
                tokenizer=tokenizer,
                prompts=encoded("practise", min(NUM_PRACTICE_PROMPTS, recipe.num_iterations * recipe.batch_prompts)),
                judge_prompts=encoded("watch", NUM_WATCHED_PROMPTS),
                pretraining=ShardReader(shards, "train"),
                save=players.save,
            )

        return self._run(
            "model",
            name,
            "training",
            self._source_sections(name, "adapter", "compute"),
            parents,
            recipe.num_iterations,
            build,
            inputs={"round": str(round)},
        )

    def self_judge(
        self, start: Artifact, snapshot: Artifact, demonstrations: Artifact, rankings: Sequence[Ranking]
    ) -> Artifact:
        """Teach a model to judge its own answers by what people said of answers.

        Args:
            start: the model that answers.
            snapshot: where the rankings are from.
            demonstrations: imitated beside.
            rankings: whose ratings may be learned from.

        Raises:
            DataError: nobody rated an answer.
        """
        recipe = self.recipe.self_judge
        tokenizer = load_tokenizer(start)
        answers = rated_answers(rankings)
        if not answers:
            raise DataError(f"none of {len(rankings)} rankings says more of an answer than its rank; rate at /label")

        def build(stage: Stage) -> Mapping[str, Any]:
            return train_self_judge(
                stage,
                recipe,
                self.recipe.compute,
                model=load_language_model(start.path),
                tokenizer=tokenizer,
                answers=answers,
                demonstrations=encode_demonstrations(
                    tokenizer, read_demonstrations(demonstrations), row_length=recipe.row_length
                ),
            )

        sections = self._with_compute(self_judge=recipe)
        parents = {"start": start, "snapshot": snapshot, "demonstrations": demonstrations}
        num_steps = num_self_judge_steps(recipe, round(len(answers) * (1 - recipe.validation_share)))
        inputs = {"rankings": _digest(rankings)}
        return self._run("model", "self_judge", "training", sections, parents, num_steps, build, inputs)

    def report(
        self,
        models: Mapping[str, Artifact],
        shards: Artifact,
        taught: TaughtJudges | None = None,
        *,
        round: int,  # noqa: A002
    ) -> Artifact:
        """Evaluate models side by side on held-out prompts and text, and a reward model on held-out labelers.

        Args:
            models: name -> artifact, in the order of their making; a base model is asked by transcript, it knows no
                roles.
            shards: their validation split is read.
            taught: the round's reward models; none leaves their figures out.
            round: whose prompts are asked.
        """
        recipe = self.recipe.evaluate

        material = self.material
        if not isinstance(material, WorldMaterial):
            raise UsageError('only material = "world" has a program that judges; `sanbai run start` reports on files')

        made = {**models, **({"judge": taught.judge, "reward": taught.reward} if taught else {})}

        def build(stage: Stage) -> Mapping[str, Any]:
            tokenizer = load_tokenizer(next(reversed(made.values())))
            entry, mistakes = ({}, []) if taught is None else self._judge_reward_model(material, taught, round)
            context = Context(
                reward_model=entry,
                mistakes=mistakes,
                series=self._series({**models, **({"reward": taught.reward} if taught else {})}),
                seconds={name: float(artifact.manifest["seconds"]) for name, artifact in models.items()},
                facts={"material": "the tiny world", "seed": str(self.recipe.seed)},
            )
            return evaluate_models(
                stage,
                recipe,
                [self._contestant(name, artifact, tokenizer) for name, artifact in models.items()],
                tokenizer=tokenizer,
                held_out=HeldOut(
                    prompts=material.judged_prompts("evaluate", recipe.num_prompts, round=round),
                    judge=judge_answer,
                    documents=heldout_documents(shards, recipe.num_documents),
                    choice_tasks=village_choice_tasks(
                        material.village, seed=self.recipe.seed, num_items=recipe.num_choices
                    ),
                ),
                context=context,
            )

        return self._run(
            "report",
            "evaluate",
            "evaluation",
            self._source_sections("evaluate", "label", "compute"),
            {**made, "shards": shards},
            STEPS_A_MODEL * len(models) + 1,
            build,
            inputs={"round": str(round), "rankings": _digest(taught.measured_by if taught else [])},
        )

    def rank(self, reward: Artifact, tasks: Sequence[Task]) -> list[tuple[tuple[int, ...], ...]]:
        """Return a reward model's ranking of each task's answers: buckets, best first."""
        model, tokenizer = load_reward_model(reward.path, self.recipe.compute), load_tokenizer(reward)
        scores = iter(
            model.score_answers(tokenizer, [(task.messages, text) for task in tasks for text in task.responses])
        )
        return [buckets_of([next(scores) for _ in task.responses]) for task in tasks]

    def watch_language(self, tokenizer: Artifact, shards: Artifact) -> Callable[[LanguageModel], dict[str, float]]:
        """Return a function that measures held-out bits per byte of a model in training."""
        begin_id = load_tokenizer(tokenizer).reserved.end_of_text
        documents = heldout_documents(shards, NUM_WATCHED_DOCUMENTS)

        def evaluate(model: LanguageModel) -> dict[str, float]:
            context = min(model.config.max_positions, self.recipe.pretrain.row_length)
            estimate = bits_per_byte(model, documents, begin_id=begin_id, context=context, seed=0, draws=200)
            return {"bits_per_byte": estimate.mean}

        return evaluate

    def watch_objective(self, tokenizer: Artifact, shards: Artifact) -> Callable[[Pretrained], dict[str, float]]:
        """Return a function that measures the recipe's objective on the same held-out rows again and again."""
        recipe = self.recipe.pretrain
        batch = next(
            open_batches(
                recipe.objective,
                ShardReader(shards, "validation"),
                load_tokenizer(tokenizer),
                row_length=recipe.row_length,
                batch_rows=NUM_WATCHED_ROWS,
                seed=derive_seed(self.recipe.seed, "pretrain", "held out"),
                to_encoder=bool(self.recipe.model.encoder_layers),
                next_sentence=recipe.next_sentence,
                mask_share=recipe.mask_share,
                names=self.material.names() if recipe.objective == "entity_masked" else (),
            )
        )

        def evaluate(model: Pretrained) -> dict[str, float]:
            return measure(model, batch, self.recipe.compute, micro_batch_rows=recipe.micro_batch_rows)

        return evaluate

    def _contestant(self, name: str, artifact: Artifact, tokenizer: Tokenizer) -> Contestant:
        model = load_language_model(artifact.path)
        asked_by = chat_contestant if knows_turns(artifact) else transcript_contestant
        room = model.config.max_positions - self.recipe.evaluate.sampling.max_new_tokens
        return asked_by(name, model, tokenizer, max_prompt_tokens=room)

    def _judge_reward_model(
        self,
        material: WorldMaterial,
        taught: TaughtJudges,
        round: int,  # noqa: A002
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Measure a reward model on held-out labelers, beside their agreement and the best that their noise allows.

        Returns:
            The numbers, and its surest mistakes as text.
        """
        rankings, seed = taught.rankings.heldout, self.recipe.seed
        pairs, tokenizer = strict_pairs(rankings), load_tokenizer(taught.reward)
        models = [load_reward_model(made.path, self.recipe.compute) for made in (taught.reward, taught.judge)]
        margin_MN = np.stack([margins(pairs, partial(model.score_answers, tokenizer)) for model in models])
        entry = reward_model_entry(
            reward_accuracy(pairs, margin_MN[0], seed=seed),
            labeler_agreement=labeler_agreement(rankings, seed=seed),
            best_possible=material.best_possible_accuracy(rankings),
            ensemble=disagreement(margin_MN, [pair.prompt for pair in pairs], seed=seed),
        )
        teachers = self._count_teachers(material, taught.rankings.training, round)
        return {**entry, "teachers": teachers}, confident_mistakes(pairs, margin_MN[0])

    def _count_teachers(
        self,
        material: WorldMaterial,
        rankings: Sequence[Ranking],
        round: int,  # noqa: A002
    ) -> dict[str, Any]:
        """Count whose rankings taught a reward model, and how often each model among them agrees with the others.

        A model ranked what it had not learned from; so it is measured on the labelers' rankings of the same round.
        """
        simulated = [labeler.name for labeler in material.labelers]
        pairs = strict_pairs([one for one in rankings if one.round == round and not is_model(one.labeler)])
        agreement = {}
        for name in sorted({one.labeler for one in rankings if is_model(one.labeler) and one.round == round}):
            teacher = self.job.workspace.load(name.removeprefix(MODEL_PREFIX))
            model = load_reward_model(teacher.path, self.recipe.compute)
            found = margins(pairs, partial(model.score_answers, load_tokenizer(teacher)))
            prompts = [pair.prompt for pair in pairs]
            agreement[name] = bootstrap_mean(is_right(found), prompts, seed=self.recipe.seed).to_json()
        return {"rankings": count_teachers(rankings, simulated), "model_agreement": agreement}

    def _series(self, models: Mapping[str, Artifact]) -> dict[str, list[dict[str, float]]]:
        """Return the metrics of the runs that made the models, by stage."""
        runs = self.job.workspace.runs
        return {str(made.manifest["stage"]): read_metrics(runs / made.name) for made in models.values()}

    def _prompt_room(self, policy: LanguageModel, max_new_tokens: int) -> int:
        """Return how long a prompt may be beside its answer; the reward model has read no longer ones."""
        return min(policy.config.max_positions - max_new_tokens, self.recipe.reward.max_prompt_tokens)

    def _with_compute(self, **sections: RecipeSection) -> dict[str, RecipeSection]:
        return {**sections, "compute": self.recipe.compute}

    def _source_sections(self, *names: str) -> dict[str, RecipeSection]:
        """Return the sections of the material, and others by name."""
        source = self.recipe.material
        return {source: getattr(self.recipe, source), **{name: getattr(self.recipe, name) for name in names}}

    def _run(
        self,
        kind: str,
        name: str,
        floor: str,
        sections: Mapping[str, RecipeSection],
        parents: Mapping[str, Artifact],
        num_steps: int,
        build: Build,
        inputs: Mapping[str, str] | None = None,
    ) -> Artifact:
        reads_material = self.recipe.material in sections
        return run_stage(
            self.job,
            kind=kind,
            name=name,
            recipe=sections,
            parents=parents,
            seed=self.recipe.seed,
            floor=floor,
            num_steps=num_steps,
            build=build,
            modules=MODULES,
            inputs={**(self.material.fingerprint() if reads_material else {}), **(inputs or {})},
        )


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
    _check_rows(start, stored.model.config, lengths)


def _check_rows(start: Artifact, config: ModelConfig, lengths: Mapping[str, int]) -> None:
    for name, length in lengths.items():
        if config.bounded and length > config.max_positions:
            raise UsageError(f"{name} {length} is above the {config.max_positions} positions of {start.name}; lower it")


def knows_turns(artifact: Artifact) -> bool:
    """Return whether a language model has seen conversations in its template: not if it has only read text."""
    return artifact.manifest["stage"] != "pretrain" and load_tokenizer(artifact).knows_turns


def read_demonstrations(artifact: Artifact) -> list[Conversation]:
    """Return the conversations of a demonstrations artifact."""
    path = artifact.file("demonstrations.jsonl.gz")
    return [Conversation.from_row(row, where=str(path)) for row in read_jsonl(path)]


def read_labeled_records(artifact: Artifact, split: str) -> list[LabeledText]:
    """Return the texts of a labelled artifact's split."""
    path = artifact.file(f"{split}.jsonl.gz")
    return [LabeledText.from_row(row, where=str(path)) for row in read_jsonl(path)]


def _short_demonstrations(artifact: Artifact, tokenizer: Tokenizer, *, max_tokens: int) -> list[Conversation]:
    """Return the first demonstrations whose answers are no longer than those that a reward model reads."""
    answered = (each for each in read_demonstrations(artifact) if each.messages[-1]["role"] == "assistant")
    short = (each for each in answered if len(tokenizer.encode(each.messages[-1]["content"])) <= max_tokens)
    return list(islice(short, NUM_CALIBRATION_DEMONSTRATIONS))


def check_vocabulary(policy: Artifact, judges: Mapping[str, Artifact]) -> None:
    """Refuse judges that would read other words than the policy has written.

    Args:
        policy: writes.
        judges: score, by their role for the message.

    Raises:
        UsageError: one has another tokenizer.
    """
    words = load_tokenizer(policy)
    for role, model in judges.items():
        others = load_tokenizer(model)
        if words.vocab_size != others.vocab_size or any(
            words.token_bytes(token) != others.token_bytes(token) for token in range(words.vocab_size)
        ):
            raise UsageError(
                f"{role} {model.name} has another tokenizer than {policy.name}; choose one trained from the same"
            )


def _num_training_prompts(opinions: Sequence[Ranking | ThumbedAnswer], validation_share: float) -> int:
    """Return about how many different prompts are trained on; for the progress bar."""
    return round(len({canonical_json(list(opinion.messages)) for opinion in opinions}) * (1 - validation_share))


def _digest(opinions: Sequence[Ranking] | Sequence[ThumbedAnswer]) -> str:
    """Return a hash of rankings or thumbs, whatever their order."""
    rows = sorted(canonical_json(opinion.to_row()) for opinion in opinions)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
