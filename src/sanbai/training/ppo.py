"""Practice: PPO against a reward model, kept near the supervised policy, with pretraining mixed in (PPO-ptx).

InstructGPT's loop (Ouyang et al. 2022, section 3.5 and appendix C.4): the policy answers a batch of prompts; the
reward model scores each answer once; every token pays β · KL to the frozen supervised policy; a value model that began
as the reward model says what was to be expected; a few minibatches move policy and value, each policy step together
with γ times the gradient of pretraining text.

Where the paper is silent: λ 0.95, value clip 0.2 and whitening over the iteration's response tokens are those of
lm-human-preferences (Ziegler et al. 2019); the pretraining loss is a mean over tokens; an answer cut by the limit
loses `unfinished_penalty`. Sampling is never warped (no top-p): log-probabilities would be another distribution's.

`describe` and `_update` give an iteration's metrics; docs/stages/ppo.md explains each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sanbai.data.packing import Items, PackedBatches
from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import derive_seed
from sanbai.foundation.stage import Stage
from sanbai.model.heads import LanguageModel, ScalarModel
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
from sanbai.training.checkpoint import Checkpoints, Saved, Weights, cursor_in
from sanbai.training.gradients import Differentiated, LossPart, add_gradient, differentiate
from sanbai.training.learner import Learner
from sanbai.training.optimizer import Optimizer
from sanbai.training.practice import (
    PracticeRecipe,
    Watch,
    minibatches,
    next_prompts,
    open_documents,
    ptx_parts,
    rollout_numbers,
    sample,
)
from sanbai.training.rollouts import (
    Readings,
    Rollouts,
    Score,
    lay_out,
    read,
    response_logprobs,
    response_values,
)
from sanbai.training.schedule import warmup_rate


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
    )
    learner = watch.learner
    critic = Critic(value.to(compute.device).eval(), Optimizer(value, recipe.optimizer))
    checkpoints = Checkpoints(stage.run, recipe.checkpoint_iterations, **watch.saved(), **critic.saved())
    step, state = checkpoints.resume()
    documents = open_documents(
        pretraining,
        recipe,
        tokenizer,
        cursor_in(state, "documents"),
        seed=derive_seed(stage.seed, "ppo", "documents"),
    )
    plan_seed = derive_seed(stage.seed, "ppo", "minibatches")

    if step == 0:
        watch.consult(step)
    while watch.goes_on(step):
        batch = next_prompts(prompts, recipe, step, seed=derive_seed(stage.seed, "ppo", "prompts"))
        rollout_seed = derive_seed(stage.seed, "ppo", "rollout", step)
        rollouts = sample(learner.policy, batch, recipe, compute, tokenizer, seed=rollout_seed)
        plans = [
            minibatches(rollouts.lengths, recipe, seed=derive_seed(plan_seed, step, epoch))
            for epoch in range(recipe.num_epochs)
        ]
        readings = read(
            rollouts,
            [group for minibatch in plans[0] for group in minibatch],
            policy=learner.policy,
            reference=learner.reference,
            value=critic.value,
            temperature=recipe.temperature,
            compute=compute,
        )
        score_N = torch.tensor(reward(rollouts.prompts, rollouts.responses))
        experience = weigh(rollouts, readings, score_N, recipe)
        learned = _update(learner, critic, experience, plans, documents, recipe, compute, step)
        step += 1
        watch.record(step, **describe(experience, score_N), **learned)
        if watch.is_due(step):
            watch.consult(step)
        checkpoints.after_step(step, {"documents": documents.cursor.to_state()})

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
    """An iteration's responses with all that the updates need; fixed before the first of them. Shapes N, R."""

    rollouts: Rollouts
    readings: Readings
    mask_NR: Tensor
    reward_NR: Tensor
    advantage_NR: Tensor
    return_NR: Tensor


def weigh(rollouts: Rollouts, readings: Readings, score_N: Tensor, recipe: PpoRecipe) -> Experience:
    """Turn scores and KL into advantages and returns.

    An answer that the limit cut off is scored as it stands, less the penalty; nothing is expected after any answer's
    last token.

    Args:
        rollouts: the responses.
        readings: what the models said of them.
        score_N: the reward model's scores, before penalties.
        recipe: β, γ, λ, penalty.
    """
    mask_NR = rollouts.mask()
    unfinished_N = torch.tensor([completion.finish_reason == "length" for completion in rollouts.completions])
    kl_NR = kl_estimate(readings.logprob_NR, readings.reference_logprob_NR, estimator="k1")
    outcome_N = torch.where(unfinished_N, score_N - recipe.unfinished_penalty, score_N)
    reward_NR = token_rewards(outcome_N, kl_NR, mask_NR, kl_coef=recipe.kl_coef)
    advantage_NR = generalized_advantages(
        reward_NR,
        readings.value_NR,
        mask_NR,
        torch.zeros(len(score_N)),
        discount=recipe.discount,
        gae_lambda=recipe.gae_lambda,
    )
    return Experience(
        rollouts,
        readings,
        mask_NR,
        reward_NR,
        advantage_NR=whiten(advantage_NR, mask_NR),
        return_NR=advantage_NR + readings.value_NR,
    )


def describe(experience: Experience, score_N: Tensor) -> dict[str, float]:
    """Return an iteration's numbers before its updates; see the module."""
    readings, mask_NR = experience.readings, experience.mask_NR
    return {
        **rollout_numbers(experience.rollouts, readings, mask_NR, score_N),
        "rlhf_reward": experience.reward_NR.sum(1).mean().item(),
        "explained_variance": explained_variance(readings.value_NR, experience.return_NR, mask_NR).item(),
    }


def _update(
    learner: Learner,
    critic: Critic,
    experience: Experience,
    plans: Sequence[Sequence[Sequence[Sequence[int]]]],
    documents: PackedBatches,
    recipe: PpoRecipe,
    compute: Compute,
    step: int,
) -> dict[str, float]:
    """Take one step of policy and value a minibatch; return the iteration's means of losses and norms."""
    rates = [
        warmup_rate(step, peak=peak, warmup_steps=recipe.warmup_iterations)
        for peak in (recipe.learning_rate, recipe.value_learning_rate)
    ]
    sums: Counter[str] = Counter()
    latest_NR = experience.readings.logprob_NR.clone()
    for minibatch in (minibatch for plan in plans for minibatch in plan):
        done = differentiate(
            {
                **_practice_parts(learner.policy, critic.value, experience, minibatch, recipe, compute, latest_NR),
                **ptx_parts(learner.policy, documents, recipe, compute),
            }
        )
        sums.update(learner.step(done, rates[0], ptx_coef=recipe.ptx_coef))
        sums.update(critic.step(done["value"], rates[1]))
    num_steps = sum(map(len, plans))
    old_NR, mask_NR = experience.readings.logprob_NR, experience.mask_NR
    return {
        **{name: total / num_steps for name, total in sums.items()},
        "approx_kl": approximate_kl(latest_NR, old_NR, mask_NR).item(),
        "clip_fraction": clip_fraction(latest_NR, old_NR, mask_NR, clip=recipe.clip).item(),
        "rate": rates[0],
    }


def _practice_parts(
    policy: LanguageModel,
    value: ScalarModel,
    experience: Experience,
    minibatch: Sequence[Sequence[int]],
    recipe: PpoRecipe,
    compute: Compute,
    latest_NR: Tensor,
) -> dict[str, list[LossPart]]:
    """Return the parts of a minibatch's `policy` and `value` loss; the former note log-probabilities in `latest_NR`."""
    denominator = sum(len(experience.rollouts.completions[index].tokens) for group in minibatch for index in group)

    def parts_of(group: Sequence[int]) -> tuple[LossPart, LossPart]:
        layout = lay_out(experience.rollouts, group, context=policy.config.max_positions, device=compute.device)
        here = torch.tensor(group), slice(0, layout.num_steps)
        readings = experience.readings
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
            latest_NR[here] = logprob_GR.detach().cpu()
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
