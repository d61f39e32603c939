"""Learning from what people said without a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sanbai.data.attributes import rated_answers
from sanbai.data.rankings import Ranking
from sanbai.data.thumbs import ThumbedAnswer
from sanbai.data.vocabulary import load_tokenizer
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import DataError
from sanbai.foundation.stage import Stage
from sanbai.model.hugging_face import load_language_model
from sanbai.rounds.stages.imitation import read_demonstrations
from sanbai.rounds.stages.opinions import digest, num_training_prompts
from sanbai.rounds.stages.stage_runner import StageRunner
from sanbai.training.direct import num_direct_steps, train_direct
from sanbai.training.self_judge import num_self_judge_steps, train_self_judge
from sanbai.training.supervise import encode_demonstrations


class DirectStages(StageRunner):
    """Direct preference, and a model that judges itself."""

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
        num_steps = num_direct_steps(recipe, num_training_prompts([*rankings, *thumbs], recipe.validation_share))
        parents = {"start": start, **snapshots}
        inputs = {"rankings": digest(rankings), **({"thumbs": digest(thumbs)} if thumbs else {})}
        return self._run("model", "direct", "training", sections, parents, num_steps, build, inputs)

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
        inputs = {"rankings": digest(rankings)}
        return self._run("model", "self_judge", "training", sections, parents, num_steps, build, inputs)
