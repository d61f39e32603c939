"""The assistants of one seed: a recipe's models from documents to policies, their labelers asked in this process.

The same stages as a round's (`rounds/pipeline.py`), without store and gate. All tables about alignment read these
models, so that each is made once in a workspace, and what differs between two of them is what a table names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from sanbai.data.rankings import Ranking
from sanbai.data.vocabulary import load_tokenizer
from sanbai.evaluation.answers import (
    Contestant,
    ScoredAnswer,
    chat_contestant,
    read_answers,
    transcript_contestant,
)
from sanbai.evaluation.divergence import response_divergence
from sanbai.evaluation.reward_accuracy import RewardAccuracy, margins, reward_accuracy, strict_pairs
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.files import canonical_json, read_json
from sanbai.foundation.stage import Job
from sanbai.model.hugging_face import load_language_model
from sanbai.rounds.material import WorldMaterial
from sanbai.rounds.panel import RankingsByUse, split_panel, split_rankings
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.practice import freeze_preferences
from sanbai.rounds.recipe import Recipe
from sanbai.rounds.stages.evaluation import knows_turns
from sanbai.rounds.tasks import read_tasks
from sanbai.rounds.turn import Ancestry, make_ancestry
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.reward_model import RewardModel, load_reward_model
from sanbai.world.labelers import SimulatedLabeler, ranking_row
from sanbai.world.prompts import Prompt


@dataclass(frozen=True)
class Labels:
    """What labelers said of one policy's answers, by use, and the snapshot that froze it."""

    snapshot: Artifact
    by_use: RankingsByUse


@dataclass(frozen=True)
class Judges:
    """The reward model that practice learns from, and the second one that watches."""

    reward: Artifact
    judge: Artifact


@dataclass(frozen=True)
class Measured:
    """One model on the held-out prompts and documents.

    Attributes:
        answers: one to each prompt, judged by the world's oracle.
        figures: `evaluation.json`'s of this model: means of the axes, `gold_utility`, `bits_per_byte` and more.
    """

    answers: Sequence[ScoredAnswer]
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Assistants:
    """One seed's assistants."""

    job: Job
    recipe: Recipe
    """With the seed in it, and `material = "world"`."""

    @cached_property
    def material(self) -> WorldMaterial:
        """The seed's village."""
        return WorldMaterial(self.recipe)

    @cached_property
    def ancestry(self) -> Ancestry:
        """Tokenizer, shards, demonstrations, base and supervised model."""
        return make_ancestry(self.pipeline())

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Of all models."""
        return load_tokenizer(self.ancestry.supervised)

    @cached_property
    def labels(self) -> Labels:
        """What the seed's labelers say of the supervised model's answers."""
        return self.ask(self.ancestry.supervised, self.material.labelers)

    @cached_property
    def judges(self) -> Judges:
        """The models that learned from `labels`."""
        return self.taught(self.labels)

    @cached_property
    def policy(self) -> Artifact:
        """The supervised model, practised by the recipe."""
        return self.practised(self.ancestry.supervised, self.judges)

    def ask(
        self,
        policy: Artifact,
        labelers: Sequence[SimulatedLabeler],
        *,
        round: int = 1,  # noqa: A002 - the field's own word
        before: Sequence[Ranking] = (),
    ) -> Labels:
        """Have labelers rank answers of a policy, each his share of the tasks, and freeze what they said.

        Args:
            policy: answers the round's prompts.
            labelers: of the whole panel, in its order; the last ones teach the second judge, or only measure.
            round: whose prompts are asked.
            before: rankings of earlier rounds, to be frozen with the new ones.
        """
        recipe = self.recipe.label
        by_name = {labeler.name: labeler for labeler in labelers}
        panel = split_panel(list(by_name), recipe)
        asked = [
            *self.material.judged_prompts("label", recipe.num_prompts, round=round),
            *self.material.judged_prompts("label-heldout", recipe.num_heldout_prompts, round=round),
        ]
        prompts = {canonical_json(list(prompt.messages)): prompt for prompt in asked}
        tasks = self.pipeline().tasks(policy, round=round)
        rankings = list(before)
        for task in read_tasks(tasks.file("tasks.jsonl.gz")):
            prompt = prompts[canonical_json(list(task.messages))]
            for name in panel.assign(task, recipe, seed=self.recipe.seed):
                row = ranking_row(prompt, task.responses, by_name[name], round_number=round)
                rankings.append(Ranking.from_row(row, where=f"ranking of {name}"))
        share = self.recipe.label.model_share
        by_use = split_rankings(rankings, panel, model_share=share, seed=self.recipe.seed)
        return Labels(freeze_preferences(self.job, by_use, seed=self.recipe.seed), by_use)

    def taught(self, labels: Labels) -> Judges:
        """Train a reward model and a second judge on labels."""
        common = (self.ancestry.supervised, labels.snapshot, self.ancestry.demonstrations)
        pipeline = self.pipeline()
        return Judges(
            pipeline.reward("reward", *common, labels.by_use.training),
            pipeline.reward("judge", *common, labels.by_use.judge),
        )

    def practised(
        self,
        start: Artifact,
        judges: Judges,
        *,
        round: int = 1,  # noqa: A002
        **changes: Any,
    ) -> Artifact:
        """Practise from a model; `changes` are fields of `[ppo]`."""
        pipeline = self.pipeline(ppo=changes)
        return pipeline.policy(start, judges.reward, judges.judge, self.ancestry.shards, round=round)

    def supervised(self, num_demonstrations: int, **changes: Any) -> Artifact:
        """Imitate some demonstrations from the base model; `changes` are fields of `[supervise]`."""
        pipeline = self.pipeline(supervise=changes, num_demonstrations=num_demonstrations)
        return pipeline.supervised(self.ancestry.base, self.ancestry.shards, pipeline.demonstrations())

    def measured(self, name: str, model: Artifact, *, round: int = 1) -> Measured:  # noqa: A002
        """Ask a model the held-out prompts of a round, and let it read the held-out documents."""
        pipeline = self.pipeline(evaluate={"num_choices": 0})
        report = pipeline.report({name: model}, self.ancestry.shards, round=round)
        found = read_json(report.file("evaluation.json"))["evaluation"][name]
        return Measured(
            read_answers(report.file(f"answers-{name}.jsonl.gz")),
            {figure: float(estimate["mean"]) for figure, estimate in found.items()},
        )

    def kl(self, model: Artifact, measured: Measured, *, round: int = 1) -> float:  # noqa: A002
        """Return a policy's KL to the supervised model on its measured answers, in nats a response."""
        policy, reference = (self.contestant(one) for one in (model, self.ancestry.supervised))
        asked = {prompt.id: prompt for prompt in self.heldout_prompts(round)}
        answers = [answer for answer in measured.answers if answer.tokens]
        return response_divergence(
            policy.model,
            reference.model,
            [policy.encode(asked[answer.prompt].messages) for answer in answers],
            [answer.tokens for answer in answers],
            batch_size=self.recipe.evaluate.batch_size,
            seed=0,
            draws=200,
        ).mean

    def contestant(self, model: Artifact) -> Contestant:
        """Open a model as it is asked: by the chat template if it knows turns, else by transcript."""
        asked_by = chat_contestant if knows_turns(model) else transcript_contestant
        room = self.recipe.model.max_positions - self.recipe.evaluate.sampling.max_new_tokens
        return asked_by("model", load_language_model(model.path), self.tokenizer, max_prompt_tokens=room)

    def heldout_prompts(self, round: int = 1) -> Sequence[Prompt]:  # noqa: A002
        """Return the prompts of `measured`, with their truth."""
        return self.material.judged_prompts("evaluate", self.recipe.evaluate.num_prompts, round=round)

    def reward_model(self, artifact: Artifact) -> RewardModel:
        """Open a reward model."""
        return load_reward_model(artifact.path, self.recipe.compute)

    def accuracy(self, reward: Artifact, rankings: Sequence[Ranking]) -> RewardAccuracy:
        """Return how often a reward model agrees with rankings."""
        model, pairs = self.reward_model(reward), strict_pairs(rankings)
        return reward_accuracy(
            pairs,
            margins(pairs, lambda answers: model.score_answers(self.tokenizer, answers)),
            seed=self.recipe.seed,
        )

    def pipeline(self, **changes: Any) -> Pipeline:
        """Return the stages of the recipe with some fields changed; a section's changes are a mapping."""
        update = {
            name: getattr(self.recipe, name).model_copy(update=value) if isinstance(value, Mapping) else value
            for name, value in changes.items()
        }
        recipe = self.recipe.model_copy(update=update)
        return Pipeline(self.job, recipe, replace(self.material, recipe=recipe))


def open_assistants(job: Job, recipe: Recipe) -> Callable[[int], Assistants]:
    """Return a function that gives a seed's assistants."""
    return lambda seed: Assistants(job, recipe.model_copy(update={"seed": seed}))


def mean_of(answers: Sequence[ScoredAnswer], figure: str) -> float:
    """Return the mean of one figure over answers."""
    return fmean(getattr(answer, figure) for answer in answers)
