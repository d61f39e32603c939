"""The answers that people and simulated labelers rank, and a model's ranking of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sanbai.data.rankings import Ranking
from sanbai.data.vocabulary import load_tokenizer
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.stage import Stage
from sanbai.model.hugging_face import load_language_model
from sanbai.rounds.material import Purpose
from sanbai.rounds.model_labeler import buckets_of
from sanbai.rounds.stages.opinions import digest
from sanbai.rounds.stages.stage_runner import StageRunner
from sanbai.rounds.tasks import LabelRecipe, Task, choose_informative, num_task_steps, sample_tasks
from sanbai.training.reward_model import load_reward_model


class LabelStages(StageRunner):
    """Sampling answers to be ranked."""

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
            inputs={"rankings": digest(rankings)},
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

    def rank(self, reward: Artifact, tasks: Sequence[Task]) -> list[tuple[tuple[int, ...], ...]]:
        """Return a reward model's ranking of each task's answers: buckets, best first."""
        model, tokenizer = load_reward_model(reward.path, self.recipe.compute), load_tokenizer(reward)
        scores = iter(
            model.score_answers(tokenizer, [(task.messages, text) for task in tasks for text in task.responses])
        )
        return [buckets_of([next(scores) for _ in task.responses]) for task in tasks]
