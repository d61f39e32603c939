"""Practice: PPO against a reward model, kept near the supervised policy, with pretraining mixed in (PPO-ptx).

InstructGPT's loop (Ouyang et al. 2022, section 3.5 and appendix C.4): the policy answers a batch of prompts; the
reward model scores each answer once; every token pays β · KL to the frozen supervised policy; a value model that began
as the reward model says what was to be expected; a few minibatches move policy and value, each policy step together
with γ times the gradient of pretraining text.

Where the paper is silent: λ 0.95, value clip 0.2 and whitening over the iteration's response tokens are those of
lm-human-preferences (Ziegler et al. 2019); the pretraining loss is a mean over tokens; an answer cut by the limit
loses `unfinished_penalty`. Sampling is never warped (no top-p): log-probabilities would be another distribution's.

`describe` gives an iteration's metrics; docs/stages/ppo.md explains each. A run that is asked to stop leaves within an
iteration, even within an update, and goes on there (`buffer.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbai.data.packing import Items
from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import derive_seed
from sanbai.foundation.stage import Stage
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import save_model
from sanbai.objectives.advantage import generalized_advantages, token_rewards
from sanbai.objectives.kl import kl_estimate
from sanbai.objectives.masked import whiten
from sanbai.objectives.ppo import (
    approximate_kl,
    clip_fraction,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
)
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.buffer import Buffer, Gathered
from sanbai.training.checkpoint import Checkpoints, Saved, Weights, cursor_in
from sanbai.training.gradients import Differentiated, LossPart, add_gradient, differentiate
from sanbai.training.kl_controller import KlController
from sanbai.training.optimizer import Optimizer
from sanbai.training.players import SavePolicy
from sanbai.training.practice import (
    PracticeRecipe,
    minibatches,
    next_prompts,
    open_documents,
    ptx_parts,
    rollout_numbers,
    sample,
)
from sanbai.training.rollouts import Rollouts, Score, lay_out, read, response_logprobs, response_values
from sanbai.training.schedule import warmup_rate
from sanbai.training.watch import Watch


class PpoRecipe(PracticeRecipe):
    """Section `[ppo]`. Defaults: InstructGPT's where it states them, for 1.3 B parameters (appendix C.4)."""

    kl_coef: float = Field(default=0.02, ge=0.0)
    """β: what a nat of KL a token costs in reward."""
    clip: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Half-width of the ratio's trust interval."""
    unfinished_penalty: float = Field(default=1.0, ge=0.0)
    """Taken from the score of an answer that the limit cut off."""
    value_learning_rate: float = Field(default=9e-6, gt=0.0, le=1.0)
    """The value model's."""
    value_clip: float = Field(default=0.2, gt=0.0)
    """How far values may move in an iteration, in units of reward."""
    discount: float = Field(default=1.0, ge=0.0, le=1.0)
    """γ of the returns; 1: an answer is one episode."""
    gae_lambda: float = Field(default=0.95, ge=0.0, le=1.0)
    """λ of the advantages."""
    kl_controller: Literal["fixed", "adaptive"] = "fixed"
    """`adaptive`: `kl_coef` is where β begins, and it is steered towards `kl_target`."""
    kl_target: float = Field(default=6.0, gt=0.0)
    """Of `adaptive`: nats a response."""
    kl_horizon: float = Field(default=10_000.0, gt=0.0)
    """Of `adaptive`: answers after which a KL of twice the target would have doubled β, were the error not clipped."""


def train_ppo(
    stage: Stage,
    recipe: PpoRecipe,
    compute: Compute,
    *,
    policy: LanguageModel,
    value: ScalarModel,
    reward: Score,
    judge: Score,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    judge_prompts: Sequence[Sequence[int]],
    pretraining: Items,
    save: SavePolicy = save_model,
) -> dict[str, Any]:
    """Improve a policy by its reward and write the best weights, by the second judge, into the stage's folder.

    Args:
        stage: one step of its run is one iteration.
        recipe: section `[ppo]`.
        compute: threads, precision, device; already applied to the process.
        policy: the supervised model; a frozen copy of it is the reference. Changed in place.
        value: a copy of the reward model, bias included. Changed in place.
        reward: usually a `RewardModel`, whose loading refuses one without calibration.
        judge: a second one, trained on other labelers.
        tokenizer: saved beside the model.
        prompts: token ids that end in <|assistant|>, for practice.
        judge_prompts: others, for the second judge.
        pretraining: documents for ptx; not read where `ptx_coef` is 0.
        save: writes the policy.

    Returns:
        Why and when training stopped, which iteration's weights were kept, and their judge reward, reward and KL beside
        those before training.

    Raises:
        Interrupted: asked to stop; the state is saved.
    """
    watch = Watch.open(
        stage,
        recipe,
        compute,
        policy=policy,
        tokenizer=tokenizer,
        reward=reward,
        judge=judge,
        prompts=judge_prompts,
        seed=derive_seed(stage.seed, "ppo", "judge"),
        save=save,
    )
    learner = watch.learner
    critic = Critic(value.to(compute.device).eval(), Optimizer(value, recipe.optimizer))
    price = KlController(recipe.kl_coef, kind=recipe.kl_controller, target=recipe.kl_target, horizon=recipe.kl_horizon)
    buffer = Buffer()
    checkpoints = Checkpoints(
        stage.run, recipe.checkpoint_iterations, **watch.saved(), **critic.saved(), kl_controller=price, buffer=buffer
    )
    leave_if_asked = stage.run.raise_if_stopping
    step, state = checkpoints.resume()
    documents = open_documents(
        pretraining,
        recipe,
        tokenizer,
        cursor_in(state, "documents"),
        seed=derive_seed(stage.seed, "ppo", "documents"),
    )

    def place() -> dict[str, Any]:
        return {"documents": documents.cursor.to_state()}

    def plan(rollouts: Rollouts) -> list[list[list[list[int]]]]:
        seed = derive_seed(stage.seed, "ppo", "minibatches")
        seeds = [derive_seed(seed, step, epoch) for epoch in range(recipe.num_epochs)]
        return [minibatches(rollouts.lengths, recipe, seed=each) for each in seeds]

    def gather() -> Gathered:
        batch = next_prompts(prompts, recipe, step, seed=derive_seed(stage.seed, "ppo", "prompts"))
        seed = derive_seed(stage.seed, "ppo", "rollout", step)
        rollouts = sample(learner.policy, batch, recipe, compute, tokenizer, seed=seed, before_step=leave_if_asked)
        readings = read(
            rollouts,
            [group for minibatch in plan(rollouts)[0] for group in minibatch],
            policy=learner.policy,
            reference=learner.reference,
            value=critic.value,
            temperature=recipe.temperature,
            compute=compute,
            before_group=leave_if_asked,
        )
        return Gathered(rollouts, readings, torch.tensor(reward(rollouts.prompts, rollouts.responses)))

    watch.consult_if_due(step, checkpoints, place())
    while watch.goes_on(step):
        with checkpoints.saving_if_stopped(step, place()):
            gathered = buffer.gathered or buffer.fill(gather())
        experience = weigh(gathered, recipe, kl_coef=price.coef)
        rates = [
            warmup_rate(step, peak=peak, warmup_steps=recipe.warmup_iterations)
            for peak in (recipe.learning_rate, recipe.value_learning_rate)
        ]
        for minibatch in buffer.left_of(chain.from_iterable(plan(gathered.rollouts))):
            with checkpoints.saving_if_stopped(step, place()):
                done = differentiate(
                    {
                        **_practice_parts(learner.policy, critic.value, experience, minibatch, recipe, compute, buffer),
                        **ptx_parts(learner.policy, documents, recipe, compute),
                    },
                    before_part=leave_if_asked,
                )
            buffer.add_step(
                learner.step(done, rates[0], ptx_coef=recipe.ptx_coef), critic.step(done["value"], rates[1])
            )
        step += 1
        numbers = describe(experience, recipe, buffer)
        watch.record(step, **numbers, rate=rates[0], kl_coef=price.coef)
        price.see(numbers["kl"], num_episodes=len(gathered.score_N))
        buffer.clear()
        watch.consult_if_due(step, checkpoints, place())
        checkpoints.after_step(step, place())

    return watch.finish(step)


@dataclass(frozen=True, slots=True)
class Critic:
    """The value model with what moves it."""

    value: ScalarModel
    optimizer: Optimizer

    def saved(self) -> dict[str, Saved]:
        """Return the parts that change, by name."""
        return {"value": Weights(self.value), "value_optimizer": self.optimizer}

    def step(self, done: Differentiated, rate: float) -> dict[str, float]:
        """Take one optimizer step along a gradient; return loss and norm."""
        add_gradient(self.value, done.gradient)
        return {"value_loss": done.loss, "value_grad_norm": self.optimizer.step(rate)}


@dataclass(frozen=True, slots=True)
class Experience:
    """What an iteration gathered, with all that the updates need; fixed before the first of them. Shapes N, R."""

    gathered: Gathered
    mask_NR: Tensor
    reward_NR: Tensor
    advantage_NR: Tensor
    return_NR: Tensor


def weigh(gathered: Gathered, recipe: PpoRecipe, *, kl_coef: float) -> Experience:
    """Turn scores and KL into advantages and returns.

    An answer that the limit cut off is scored as it stands, less the penalty; nothing is expected after any answer's
    last token.

    Args:
        gathered: the responses and what the models said of them.
        recipe: γ, λ, penalty.
        kl_coef: β of this iteration.
    """
    rollouts, readings, score_N = gathered.rollouts, gathered.readings, gathered.score_N
    mask_NR = rollouts.mask()
    unfinished_N = torch.tensor([completion.finish_reason == "length" for completion in rollouts.completions])
    kl_NR = kl_estimate(readings.logprob_NR, readings.reference_logprob_NR, estimator="k1")
    outcome_N = torch.where(unfinished_N, score_N - recipe.unfinished_penalty, score_N)
    reward_NR = token_rewards(outcome_N, kl_NR, mask_NR, kl_coef=kl_coef)
    advantage_NR = generalized_advantages(
        reward_NR,
        readings.value_NR,
        mask_NR,
        torch.zeros(len(score_N)),
        discount=recipe.discount,
        gae_lambda=recipe.gae_lambda,
    )
    return Experience(
        gathered,
        mask_NR,
        reward_NR,
        advantage_NR=whiten(advantage_NR, mask_NR),
        return_NR=advantage_NR + readings.value_NR,
    )


def describe(experience: Experience, recipe: PpoRecipe, buffer: Buffer) -> dict[str, float]:
    """Return an iteration's numbers: of its answers, then of its update; docs/stages/ppo.md explains each."""
    gathered, mask_NR = experience.gathered, experience.mask_NR
    values_NR, old_NR, new_NR = gathered.readings.value_NR, gathered.readings.logprob_NR, buffer.latest_NR
    return {
        **rollout_numbers(gathered.rollouts, gathered.readings, mask_NR, gathered.score_N),
        "rlhf_reward": experience.reward_NR.sum(1).mean().item(),
        "explained_variance": explained_variance(values_NR, experience.return_NR, mask_NR).item(),
        **buffer.means(),
        "approx_kl": approximate_kl(new_NR, old_NR, mask_NR).item(),
        "clip_fraction": clip_fraction(new_NR, old_NR, mask_NR, clip=recipe.clip).item(),
    }


def _practice_parts(
    policy: LanguageModel,
    value: ScalarModel,
    experience: Experience,
    minibatch: Sequence[Sequence[int]],
    recipe: PpoRecipe,
    compute: Compute,
    buffer: Buffer,
) -> dict[str, list[LossPart]]:
    """Return the parts of a minibatch's `policy` and `value` loss; the former note log-probabilities in the buffer."""
    rollouts, readings = experience.gathered.rollouts, experience.gathered.readings
    denominator = sum(len(rollouts.completions[index].tokens) for group in minibatch for index in group)

    def parts_of(group: Sequence[int]) -> tuple[LossPart, LossPart]:
        layout = lay_out(rollouts, group, context=policy.config.max_positions, device=compute.device)
        here = torch.tensor(group), slice(0, layout.num_steps)
        mask_GR, advantage_GR, return_GR, old_logprob_GR, old_value_GR = (
            grid_NR[here].to(compute.device)
            for grid_NR in (
                experience.mask_NR,
                experience.advantage_NR,
                experience.return_NR,
                readings.logprob_NR,
                readings.value_NR,
            )
        )

        def policy_loss() -> Tensor:
            logprob_GR = response_logprobs(policy, layout, temperature=recipe.temperature, compute=compute)
            buffer.latest_NR[here] = logprob_GR.detach().cpu()
            return clipped_policy_loss(
                logprob_GR, old_logprob_GR, advantage_GR, mask_GR, clip=recipe.clip, denominator=denominator
            )

        def value_loss() -> Tensor:
            value_GR = response_values(value, layout, compute=compute)
            return clipped_value_loss(
                value_GR, old_value_GR, return_GR, mask_GR, clip=recipe.value_clip, denominator=denominator
            )

        return LossPart(policy, policy_loss), LossPart(value, value_loss)

    pairs = [parts_of(group) for group in minibatch]
    return {"policy": [first for first, _ in pairs], "value": [second for _, second in pairs]}
