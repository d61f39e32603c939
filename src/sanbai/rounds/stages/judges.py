"""The judges: the reward model, and the second one that watches what is rewarded by the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sanbai.data.conversations import Conversation
from sanbai.data.rankings import Ranking
from sanbai.data.vocabulary import load_tokenizer
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import UsageError
from sanbai.foundation.stage import Stage
from sanbai.model.hugging_face import load_language_model
from sanbai.rounds.panel import RankingsByUse
from sanbai.rounds.stages.imitation import read_demonstrations
from sanbai.rounds.stages.opinions import digest, num_training_prompts
from sanbai.rounds.stages.stage_runner import StageRunner
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.reward import num_reward_steps, train_reward

#: Demonstrations whose mean reward is set to 0.
NUM_CALIBRATION_DEMONSTRATIONS = 1000


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


class JudgeStages(StageRunner):
    """Training a reward model."""

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
        num_steps = num_reward_steps(recipe, num_training_prompts(rankings, recipe.validation_share))
        inputs = {"rankings": digest(rankings)}
        return self._run("model", name, "training", sections, parents, num_steps, build, inputs)


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


def _short_demonstrations(artifact: Artifact, tokenizer: Tokenizer, *, max_tokens: int) -> list[Conversation]:
    """Return the first demonstrations whose answers are no longer than those that a reward model reads."""
    answered = (each for each in read_demonstrations(artifact) if each.messages[-1]["role"] == "assistant")
    short = (each for each in answered if len(tokenizer.encode(each.messages[-1]["content"])) <= max_tokens)
    return list(islice(short, NUM_CALIBRATION_DEMONSTRATIONS))
