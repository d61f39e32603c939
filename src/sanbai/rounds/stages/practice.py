"""Practice: a policy answers prompts, and learns from what the judges say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from sanbai.data.shards import ShardReader
from sanbai.data.vocabulary import load_tokenizer
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.stage import Stage
from sanbai.model.adapters.shared import copy_learning
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model
from sanbai.rounds.material import Purpose
from sanbai.rounds.stages.imitation import ImitationStages
from sanbai.rounds.stages.judges import check_vocabulary
from sanbai.text.chat_template import encode_prompt, prompt_room
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.expert_iteration import iterate_experts
from sanbai.training.group import train_group
from sanbai.training.players import Players, load_adapted_players, load_players
from sanbai.training.ppo import train_ppo
from sanbai.training.practice import PracticeRecipe
from sanbai.training.reject import keep_best, num_reject_steps
from sanbai.training.reward_model import load_reward_model
from sanbai.training.supervise import SuperviseRecipe

#: Different prompts that a policy practises on, again and again; InstructGPT's had 31,144.
NUM_PRACTICE_PROMPTS = 31_144
#: Held-out prompts that the second judge watches.
NUM_WATCHED_PROMPTS = 256


class PracticeStages(ImitationStages):
    """PPO, the practice without a value model, and imitation of the best of many answers."""

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
            room = self._prompt_room(name, players.policy, tokenizer)

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

    def best_answers(self, policy: Artifact, reward: Artifact, judge: Artifact) -> Artifact:
        """Answer prompts several times and keep what the reward model likes best, as demonstrations.

        Raises:
            UsageError: a judge has another vocabulary than the policy.
        """
        recipe, compute = self.recipe.reject, self.recipe.compute
        check_vocabulary(policy, {"reward model": reward, "second judge": judge})
        prompts = self.material.prompts("practise", recipe.num_prompts)

        def build(stage: Stage) -> Mapping[str, Any]:
            model, tokenizer = load_language_model(policy.path), load_tokenizer(policy)
            return keep_best(
                stage,
                recipe,
                compute,
                policy=model,
                reward=load_reward_model(reward.path, compute),
                judge=load_reward_model(judge.path, compute),
                tokenizer=tokenizer,
                prompts=prompts,
                max_prompt_tokens=self._prompt_room("reject", model, tokenizer),
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

    def _prompt_room(self, section: str, policy: LanguageModel, tokenizer: Tokenizer) -> int:
        """Return how long a prompt may be beside its answer; the reward model has read no longer ones.

        Raises:
            UsageError: the section's answers leave no room.
        """
        room = prompt_room(
            policy.config.max_positions,
            getattr(self.recipe, section).max_new_tokens,
            field=f"{section}.max_new_tokens",
            smallest=tokenizer.turns.smallest_prompt,
        )
        return min(room, self.recipe.reward.max_prompt_tokens)
