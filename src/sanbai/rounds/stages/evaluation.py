"""The report of a round: models side by side, and the reward model held against people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from sanbai.data.rankings import Ranking
from sanbai.data.vocabulary import load_tokenizer
from sanbai.evaluation.answers import Contestant, chat_contestant, transcript_contestant
from sanbai.evaluation.disagreement import disagreement
from sanbai.evaluation.language import heldout_documents
from sanbai.evaluation.mistakes import confident_mistakes
from sanbai.evaluation.models import STEPS_A_MODEL, Context, HeldOut, evaluate_models
from sanbai.evaluation.recipe import EvaluateRecipe
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
from sanbai.foundation.errors import UsageError
from sanbai.foundation.run import read_metrics
from sanbai.foundation.stage import Stage
from sanbai.model.hugging_face import load_language_model
from sanbai.rounds.material import WorldMaterial
from sanbai.rounds.model_labeler import count_teachers, is_model
from sanbai.rounds.stages.judges import TaughtJudges
from sanbai.rounds.stages.opinions import digest
from sanbai.rounds.stages.stage_runner import StageRunner
from sanbai.text.chat_template import prompt_room
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.reward_model import load_reward_model
from sanbai.world.oracle import judge as judge_answer


class EvaluationStages(StageRunner):
    """Evaluation on held-out prompts, text and labelers."""

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
                [make_contestant(name, artifact, tokenizer, recipe) for name, artifact in models.items()],
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
            inputs={"round": str(round), "rankings": digest(taught.measured_by if taught else [])},
        )

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


def make_contestant(
    name: str, artifact: Artifact, tokenizer: Tokenizer, recipe: EvaluateRecipe, *, longest_read: int | None = None
) -> Contestant:
    """Return a model as it is asked: by its chat template, or by a transcript where it knows no turns.

    Args:
        name: in the report.
        artifact: a language model.
        tokenizer: of all contestants.
        recipe: section `[evaluate]`, whose answers leave a prompt its room.
        longest_read: tokens of the longest prompt that a reward model has read, where one judges.

    Raises:
        UsageError: no prompt fits beside the answers.
    """
    model = load_language_model(artifact.path)
    asked_by = chat_contestant if knows_turns(artifact) else transcript_contestant
    room = prompt_room(
        model.config.max_positions,
        recipe.sampling.max_new_tokens,
        field="evaluate.sampling.max_new_tokens",
        smallest=tokenizer.turns.smallest_prompt,
    )
    return asked_by(name, model, tokenizer, max_prompt_tokens=min(room, longest_read or room))


def knows_turns(artifact: Artifact) -> bool:
    """Return whether a language model has seen conversations in its template: not if it has only read text."""
    return artifact.manifest["stage"] != "pretrain" and load_tokenizer(artifact).knows_turns
