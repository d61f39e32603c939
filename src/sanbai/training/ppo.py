"""Practice: PPO against a reward model, kept near the supervised policy, with pretraining mixed in (PPO-ptx).

InstructGPT's loop (Ouyang et al. 2022, section 3.5 and appendix C.4): the policy answers a batch of prompts; the
reward model scores each answer once; every token pays β · KL to the frozen supervised policy; a value model that began
as the reward model says what was to be expected; a few minibatches move policy and value, each policy step together
with γ times the gradient of pretraining text.

Where the paper is silent: λ 0.95, value clip 0.2 and whitening over the iteration's response tokens are those of
lm-human-preferences (Ziegler et al. 2019); the pretraining loss is a mean over tokens; an answer cut by the limit
loses `unfinished_penalty`. Sampling is never warped (no top-p): log-probabilities would be another distribution's.

Metrics an iteration:
    reward              mean score before penalties; rises if anything is learned, proves nothing alone
    judge_reward        the second judge's, on held-out prompts, of the weights that would be kept; `judged_reward`,
    `judged_kl` beside it kl, kl_per_token    k1 to the reference, nats a response and a token;  kl_k3 the steadier
    estimate a response entropy             nats a token; a fall to 0 is collapse length, finished    mean response
    tokens; share that drew <|end|> approx_kl, clip_fraction    old to new policy over the last epoch; a few
    hundredths, a few tenths at most explained_variance  of the returns by the values before the update; should rise
    from 0 towards 1 policy_loss, value_loss, ptx_loss grad_norm, value_grad_norm  before clipping;  ptx_ratio  ‖γ
    g_ptx‖ / ‖g_ppo‖ mismatch, max_mismatch      |sampler's - trainer's log-probability|, mean and largest over tokens
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from statistics import fmean
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbai.data.packing import Cursor, Items, PackedBatches
from sanbai.foundation.device import Compute
from sanbai.foundation.parallel import map_parts
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed, numpy_generator
from sanbai.foundation.stage import Stage
from sanbai.generation.engine import decoding_precision, generate
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import save_model
from sanbai.objectives.advantage import generalized_advantages, token_rewards
from sanbai.objectives.kl import kl_estimate
from sanbai.objectives.masked import masked_mean, masked_sum, whiten
from sanbai.objectives.ppo import (
    approximate_kl,
    clip_fraction,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
)
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.brake import Brake, Verdict
from sanbai.training.checkpoint import Checkpoints, Saved, Weights, cursor_in
from sanbai.training.ema import AverageWeights
from sanbai.training.gradients import Differentiated, LossPart, add_gradient, differentiate, length
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.order import endless_order
from sanbai.training.rollouts import (
    Readings,
    Rollouts,
    Score,
    lay_out,
    read,
    response_logprobs,
    response_values,
)
from sanbai.training.rows import row_parts
from sanbai.training.schedule import warmup_rate
from sanbai.training.sequences import group_by_tokens


class PpoRecipe(RecipeSection):
    """Section `[ppo]`. Defaults: InstructGPT's where it states them, for 1.3 B parameters (appendix C.4)."""

    num_iterations: int = Field(default=500, ge=1)
    """Rounds of sampling and learning; 500 of 512 prompts are the paper's 256 thousand episodes."""
    batch_prompts: int = Field(default=512, ge=1)
    """Prompts answered in an iteration, one answer each."""
    minibatch_prompts: int = Field(default=64, ge=1)
    """Answers an optimizer step."""
    num_epochs: int = Field(default=1, ge=1, le=100)
    """Passes over an iteration's answers."""
    micro_batch_tokens: int = Field(default=16_384, ge=1)
    """Tokens computed at once. Changes memory and speed, not the mathematics; on a CPU 2,048 is fastest."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest answer."""
    rollout_rows: int = Field(default=64, ge=1)
    """Answers sampled at once. Changes memory and speed, and nothing else but rounding."""
    temperature: float = Field(default=1.0, gt=0.0, le=10.0)
    """The policy *is* softmax(logits / temperature), in sampling, in the ratio and in the KL."""
    learning_rate: float = Field(default=8e-6, gt=0.0, le=1.0)
    """The policy's; the paper prints only a sweep, and 8.05e-6 as the highest that was stable without ptx."""
    value_learning_rate: float = Field(default=9e-6, gt=0.0, le=1.0)
    """The value model's."""
    warmup_iterations: int = Field(default=10, ge=0)
    """Iterations over which both rates climb from a tenth."""
    kl_coef: float = Field(default=0.02, ge=0.0)
    """β: what a nat of KL a token costs in reward."""
    clip: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Half-width of the ratio's trust interval."""
    value_clip: float = Field(default=0.2, gt=0.0)
    """How far values may move in an iteration, in units of reward."""
    discount: float = Field(default=1.0, ge=0.0, le=1.0)
    """γ of the returns; 1: an answer is one episode."""
    gae_lambda: float = Field(default=0.95, ge=0.0, le=1.0)
    """λ of the advantages."""
    unfinished_penalty: float = Field(default=1.0, ge=0.0)
    """Taken from the score of an answer that the limit cut off."""
    ptx_coef: float = Field(default=27.8, ge=0.0)
    """γ: weight of the pretraining loss (mean nats a token) beside the policy loss (mean a token). 0: plain PPO."""
    ptx_ratio: float = Field(default=8.0, gt=0.0)
    """Pretraining rows for each answer of a minibatch, rounded, at least one row."""
    ptx_row_length: int = Field(default=2048, ge=2)
    """Tokens of a pretraining row."""
    ema_decay: float = Field(default=0.992, ge=0.0, lt=1.0)
    """Memory of the averaged weights, an optimizer step."""
    keep: Literal["average", "last"] = "average"
    """Which weights the second judge reads and the stage keeps: the average, or the last step's."""
    judge_iterations: int = Field(default=20, ge=1)
    """Iterations between two readings of the second judge."""
    patience: int = Field(default=5, ge=1)
    """Readings without a better one before training stops."""
    kl_budget: float = Field(default=20.0, gt=0.0)
    """Nats a response, on the judge's prompts: weights beyond are not kept, and training stops."""
    checkpoint_iterations: int = Field(default=10, ge=1)
    """Iterations between two checkpoints."""
    optimizer: OptimizerRecipe = OptimizerRecipe()
    """Section `[ppo.optimizer]`, for policy and value."""


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
    players = Players.gather(policy.to(compute.device), value.to(compute.device), recipe)
    brake = Brake(patience=recipe.patience, kl_budget=recipe.kl_budget)
    checkpoints = Checkpoints(stage.run, recipe.checkpoint_iterations, **players.saved(), brake=brake)
    step, state = checkpoints.resume()
    documents = _open_documents(pretraining, recipe, tokenizer, cursor_in(state, "documents"), stage.seed)
    plan_seed = derive_seed(stage.seed, "ppo", "minibatches")

    def consult() -> None:
        verdict = _judge(step, players, judge_prompts, reward, judge, recipe, compute, tokenizer, stage.seed)
        brake.see(verdict, players.kept.tensors())
        stage.run.record(step, **_numbers(verdict))

    if step == 0:
        consult()
    while step < recipe.num_iterations and not brake.stop_reason:
        batch = _next_prompts(prompts, recipe, step, stage.seed)
        rollout_seed = derive_seed(stage.seed, "ppo", "rollout", step)
        rollouts = sample(players.policy, batch, recipe, compute, tokenizer, seed=rollout_seed)
        plans = [
            minibatches(rollouts.lengths, recipe, seed=derive_seed(plan_seed, step, epoch))
            for epoch in range(recipe.num_epochs)
        ]
        readings = read(
            rollouts,
            [group for minibatch in plans[0] for group in minibatch],
            policy=players.policy,
            reference=players.reference,
            value=players.value,
            temperature=recipe.temperature,
            compute=compute,
        )
        score_N = torch.tensor(reward(rollouts.prompts, rollouts.responses))
        experience = weigh(rollouts, readings, score_N, recipe)
        learned = _update(players, experience, plans, documents, recipe, compute, step)
        step += 1
        stage.run.record(step, **describe(experience, score_N), **learned)
        if step % recipe.judge_iterations == 0 or step == recipe.num_iterations:
            consult()
        checkpoints.after_step(step, {"documents": documents.cursor.to_state()})

    reason = brake.stop_reason or "iterations"
    stage.run.event("ppo.stopped", reason=reason, step=step, kept=brake.best.step)
    Weights(players.policy).load(brake.best_weights)
    save_model(players.policy, stage.folder, tokenizer)
    return {
        "stop_reason": reason,
        "iterations": step,
        "kept_iteration": brake.best.step,
        **{f"{name}_before": value for name, value in _numbers(brake.first).items()},
        **_numbers(brake.best),
    }


@dataclass(frozen=True, slots=True)
class Players:
    """The models of PPO but for the judges, with what moves them.

    Attributes:
        policy: learns.
        reference: the policy as it was; never changes.
        value: learns.
        candidate: holds the weights that would be kept, when they are judged.
        optimizer: the policy's.
        value_optimizer: the value model's.
        average: of the policy's weights.
        kept: the weights that would be kept: the average's or the policy's.
    """

    policy: LanguageModel
    reference: LanguageModel
    value: ScalarModel
    candidate: LanguageModel
    optimizer: Optimizer
    value_optimizer: Optimizer
    average: AverageWeights
    kept: Saved

    @classmethod
    def gather(cls, policy: LanguageModel, value: ScalarModel, recipe: PpoRecipe) -> Players:
        """Return the players before the first iteration."""
        average = AverageWeights(policy, recipe.ema_decay)
        return cls(
            policy=policy,
            reference=copy.deepcopy(policy),
            value=value,
            candidate=copy.deepcopy(policy),
            optimizer=Optimizer(policy, recipe.optimizer),
            value_optimizer=Optimizer(value, recipe.optimizer),
            average=average,
            kept=average if recipe.keep == "average" else Weights(policy),
        )

    def saved(self) -> dict[str, Saved]:
        """Return the parts that change, by name."""
        return {
            "policy": Weights(self.policy),
            "value": Weights(self.value),
            "optimizer": self.optimizer,
            "value_optimizer": self.value_optimizer,
            "average": self.average,
        }


@dataclass(frozen=True, slots=True)
class Experience:
    """An iteration's responses with all that the updates need; fixed before the first of them. Shapes N, R."""

    rollouts: Rollouts
    readings: Readings
    mask_NR: Tensor
    advantage_NR: Tensor
    return_NR: Tensor


def sample(
    policy: LanguageModel,
    prompts: Sequence[Sequence[int]],
    recipe: PpoRecipe,
    compute: Compute,
    tokenizer: Tokenizer,
    *,
    seed: int,
) -> Rollouts:
    """Answer each prompt once, at the recipe's temperature and never warped.

    Args:
        policy: left as it is.
        prompts: token ids.
        recipe: temperature and limit.
        compute: in bfloat16 the sampler's weights are cast too; the ratio's old log-probabilities are the trainer's all
            the same, and the difference is in the log (`mismatch`).
        tokenizer: knows what ends an answer.
        seed: of this sampling; a row's draw depends on it and the row's number.
    """
    completions = generate(
        policy,
        prompts,
        Sampling(temperature=recipe.temperature, max_new_tokens=recipe.max_new_tokens),
        seeds=[derive_seed(seed, row) for row in range(len(prompts))],
        stop_ids=tokenizer.reserved.ends(),
        batch_size=recipe.rollout_rows,
        precision=decoding_precision(compute),
    )
    return Rollouts(prompts, completions)


def minibatches(lengths: Sequence[int], recipe: PpoRecipe, *, seed: int) -> list[list[list[int]]]:
    """Return one epoch's minibatches, each cut into groups that are computed together."""
    order = numpy_generator(seed, "order").permutation(len(lengths)).tolist()
    size = recipe.minibatch_prompts
    members = [order[start : start + size] for start in range(0, len(order), size)]
    return [
        [
            [minibatch[place] for place in group]
            for group in group_by_tokens([lengths[index] for index in minibatch], max_tokens=recipe.micro_batch_tokens)
        ]
        for minibatch in members
    ]


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
    reward_NR = token_rewards(
        score_N - recipe.unfinished_penalty * unfinished_N, kl_NR, mask_NR, kl_coef=recipe.kl_coef
    )
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
        advantage_NR=whiten(advantage_NR, mask_NR),
        return_NR=advantage_NR + readings.value_NR,
    )


def describe(experience: Experience, score_N: Tensor) -> dict[str, float]:
    """Return an iteration's numbers before its updates; see the module."""
    readings, mask_NR = experience.readings, experience.mask_NR
    k1_NR, k3_NR = (
        kl_estimate(readings.logprob_NR, readings.reference_logprob_NR, estimator=estimator)
        for estimator in ("k1", "k3")
    )
    num_responses = len(score_N)
    mismatch_NR = (experience.rollouts.sampler_logprobs() - readings.logprob_NR).abs() * mask_NR
    finished = sum(completion.finish_reason == "stop" for completion in experience.rollouts.completions)
    numbers = {
        "reward": score_N.mean(),
        "kl": masked_sum(k1_NR, mask_NR) / num_responses,
        "kl_per_token": masked_mean(k1_NR, mask_NR),
        "kl_k3": masked_sum(k3_NR, mask_NR) / num_responses,
        "entropy": masked_mean(readings.entropy_NR, mask_NR),
        "length": mask_NR.sum() / num_responses,
        "explained_variance": explained_variance(readings.value_NR, experience.return_NR, mask_NR),
        "mismatch": masked_mean(mismatch_NR, mask_NR),
        "max_mismatch": mismatch_NR.max(),
    }
    return {**{name: number.item() for name, number in numbers.items()}, "finished": finished / num_responses}


def _update(
    players: Players,
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
        parts = _practice_parts(players, experience, minibatch, recipe, compute, latest_NR)
        if recipe.ptx_coef:
            rows = max(1, recipe.micro_batch_tokens // recipe.ptx_row_length)
            parts["ptx"] = row_parts(
                players.policy, next(documents), compute, micro_batch_rows=rows, coefficient=recipe.ptx_coef
            )
        done = differentiate(parts)
        add_gradient(players.value, done["value"].gradient)
        numbers = {"value_loss": done["value"].loss, **add_policy_gradient(players.policy, done, recipe.ptx_coef)}
        numbers["grad_norm"] = players.optimizer.step(rates[0])
        numbers["value_grad_norm"] = players.value_optimizer.step(rates[1])
        players.average.update(players.policy)
        sums.update(numbers)
    num_steps = sum(map(len, plans))
    old_NR, mask_NR = experience.readings.logprob_NR, experience.mask_NR
    return {
        **{name: total / num_steps for name, total in sums.items()},
        "approx_kl": approximate_kl(latest_NR, old_NR, mask_NR).item(),
        "clip_fraction": clip_fraction(latest_NR, old_NR, mask_NR, clip=recipe.clip).item(),
        "rate": rates[0],
    }


def add_policy_gradient(policy: LanguageModel, done: Mapping[str, Differentiated], ptx_coef: float) -> dict[str, float]:
    """Add the gradient of PPO's loss and, where there is one, of γ times pretraining's; return losses and ratio.

    Args:
        policy: its `.grad` are added to.
        done: `policy`, and `ptx` with γ in it.
        ptx_coef: γ.
    """
    add_gradient(policy, done["policy"].gradient)
    numbers = {"policy_loss": done["policy"].loss}
    if "ptx" in done:
        add_gradient(policy, done["ptx"].gradient)
        numbers["ptx_loss"] = done["ptx"].loss / ptx_coef
        numbers["ptx_ratio"] = length(done["ptx"].gradient) / max(length(done["policy"].gradient), 1e-12)
    return numbers


def _practice_parts(
    players: Players,
    experience: Experience,
    minibatch: Sequence[Sequence[int]],
    recipe: PpoRecipe,
    compute: Compute,
    latest_NR: Tensor,
) -> dict[str, list[LossPart]]:
    """Return the parts of a minibatch's `policy` and `value` loss; the former note log-probabilities in `latest_NR`."""
    denominator = sum(len(experience.rollouts.completions[index].tokens) for group in minibatch for index in group)

    def parts_of(group: Sequence[int]) -> tuple[LossPart, LossPart]:
        layout = lay_out(experience.rollouts, group, context=players.policy.config.max_positions, device=compute.device)
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
            logprob_GR = response_logprobs(players.policy, layout, temperature=recipe.temperature, compute=compute)
            latest_NR[here] = logprob_GR.detach().cpu()
            return clipped_policy_loss(
                logprob_GR, old_logprob_GR, advantage_GR, mask_GR, clip=recipe.clip, denominator=denominator
            )

        def value_loss() -> Tensor:
            value_GR = response_values(players.value, layout, compute=compute)
            return clipped_value_loss(
                value_GR, old_value_GR, return_GR, mask_GR, clip=recipe.value_clip, denominator=denominator
            )

        return LossPart(players.policy, policy_loss), LossPart(players.value, value_loss)

    pairs = [parts_of(group) for group in minibatch]
    return {"policy": [policy for policy, _ in pairs], "value": [value for _, value in pairs]}


def _judge(
    step: int,
    players: Players,
    prompts: Sequence[Sequence[int]],
    reward: Score,
    judge: Score,
    recipe: PpoRecipe,
    compute: Compute,
    tokenizer: Tokenizer,
    seed: int,
) -> Verdict:
    """Let the weights that would be kept answer the held-out prompts, always with the same draws, and score them."""
    Weights(players.candidate).load(players.kept.tensors())
    rollouts = sample(players.candidate, prompts, recipe, compute, tokenizer, seed=derive_seed(seed, "ppo", "judge"))

    @torch.no_grad()
    def kl_of(group: Sequence[int]) -> float:
        layout = lay_out(rollouts, group, context=players.policy.config.max_positions, device=compute.device)
        logprob_GR, reference_GR = (
            response_logprobs(model, layout, temperature=recipe.temperature, compute=compute)
            for model in (players.candidate, players.reference)
        )
        return kl_estimate(logprob_GR, reference_GR, estimator="k3").sum().item()

    kl = fsum(map_parts(kl_of, group_by_tokens(rollouts.lengths, max_tokens=recipe.micro_batch_tokens)))
    return Verdict(
        step=step,
        judge_reward=fmean(judge(rollouts.prompts, rollouts.responses)),
        reward=fmean(reward(rollouts.prompts, rollouts.responses)),
        kl=kl / len(prompts),
    )


def _numbers(verdict: Verdict) -> dict[str, float]:
    return {"judge_reward": verdict.judge_reward, "judged_reward": verdict.reward, "judged_kl": verdict.kl}


def _next_prompts(prompts: Sequence[Sequence[int]], recipe: PpoRecipe, step: int, seed: int) -> list[Sequence[int]]:
    order = endless_order(
        len(prompts),
        start=step * recipe.batch_prompts,
        count=recipe.batch_prompts,
        seed=derive_seed(seed, "ppo", "prompts"),
    )
    return [prompts[index] for index in order]


def _open_documents(items: Items, recipe: PpoRecipe, tokenizer: Tokenizer, cursor: Cursor, seed: int) -> PackedBatches:
    return PackedBatches(
        items,
        row_length=recipe.ptx_row_length,
        batch_rows=max(1, round(recipe.ptx_ratio * recipe.minibatch_prompts)),
        seed=derive_seed(seed, "ppo", "documents"),
        pad_id=tokenizer.reserved.pad,
        cursor=cursor,
    )
