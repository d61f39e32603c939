"""Practice without a value model: several answers to each prompt, each judged by the others (GRPO, Dr. GRPO, RLOO).

The policy answers every prompt of an iteration K times; an answer's advantage is its reward beside those of the same
prompt (`objectives/group.py`, with the papers). Everything else is PPO's (`ppo.py`): the reference, pretraining rows
beside every minibatch, averaged weights, the brake with the second judge.

The KL to the reference has one place. In the reward it is k1 over the whole answer, taken off the score before answers
are compared, as in RLOO's paper. As a term of the loss it is k2 or k3 of each token, weighed as the token is; only k2's
gradient is that of the KL (`objectives/kl.py`), k3 is GRPO's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbai.data.packing import Items, PackedBatches
from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import derive_seed
from sanbai.foundation.stage import Stage
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import save_model
from sanbai.objectives.group import Advantage, Normalization, group_advantages, reinforce_loss, response_weights
from sanbai.objectives.kl import kl_estimate
from sanbai.objectives.masked import masked_sum
from sanbai.objectives.ppo import approximate_kl, clip_fraction, clipped_policy_loss
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.candidates import Candidates, draw_candidates
from sanbai.training.checkpoint import Checkpoints, cursor_in
from sanbai.training.gradients import LossPart, differentiate
from sanbai.training.learner import Learner
from sanbai.training.players import SavePolicy
from sanbai.training.practice import (
    PracticeRecipe,
    minibatches,
    next_prompts,
    open_documents,
    ptx_parts,
    rollout_numbers,
)
from sanbai.training.rollouts import Readings, Rollouts, Score, lay_out, read, response_logprobs
from sanbai.training.schedule import warmup_rate
from sanbai.training.watch import Watch


class GroupRecipe(PracticeRecipe):
    """Section `[group]`. Defaults: those of GRPO's paper (Shao et al. 2024, section 4.2) where it has any."""

    batch_prompts: int = Field(default=16, ge=1)
    """Prompts answered in an iteration, `num_answers` times each."""
    minibatch_prompts: int = Field(default=16, ge=1)
    """Prompts an optimizer step, with all their answers."""
    num_answers: int = Field(default=64, ge=2)
    """K: answers to a prompt in an iteration."""
    learning_rate: float = Field(default=1e-6, gt=0.0, le=1.0)
    """The policy's."""
    advantage: Advantage = "grpo"
    """What an answer is worth beside the others: (r - mean) / std; `dr_grpo`: r - mean; `rloo`: r less the mean of the
    others."""
    normalization: Normalization = "response"
    """The loss is a mean over responses of their tokens' mean; `token`: a mean over all tokens; `constant`: a mean over
    responses of their tokens' sum / `max_new_tokens` (Dr. GRPO); `sum`: of their tokens' sum (RLOO)."""
    surrogate: Literal["clipped", "reinforce"] = "clipped"
    """PPO's clipped ratio a token; `reinforce`: the log-probability of the whole answer, without `clip` (RLOO)."""
    kl_in: Literal["reward", "k2_loss", "k3_loss"] = "k3_loss"
    """Where the KL is priced, and by which estimate: k1 in the reward, or k2 or k3 beside the loss."""
    kl_coef: float = Field(default=0.04, ge=0.0)
    """β: what a nat of KL costs, there."""
    clip: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Half-width of the ratio's trust interval."""
    unfinished_penalty: float = Field(default=1.0, ge=0.0)
    """Taken from the score of an answer that the limit cut off."""


def train_group(
    stage: Stage,
    recipe: GroupRecipe,
    compute: Compute,
    *,
    policy: LanguageModel,
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
        recipe: section `[group]`.
        compute: threads, precision, device; already applied to the process.
        policy: the supervised model; a frozen copy of it is the reference. Changed in place.
        reward: usually a `RewardModel`.
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
    seed = derive_seed(stage.seed, "group")
    watch = Watch.open(
        stage,
        recipe,
        compute,
        policy=policy,
        tokenizer=tokenizer,
        reward=reward,
        judge=judge,
        prompts=judge_prompts,
        seed=derive_seed(seed, "judge"),
        save=save,
    )
    learner = watch.learner
    checkpoints = Checkpoints(stage.run, recipe.checkpoint_iterations, **watch.saved())
    step, state = checkpoints.resume()
    documents = open_documents(
        pretraining,
        recipe,
        tokenizer,
        cursor_in(state, "documents"),
        seed=derive_seed(seed, "documents"),
        num_answers=recipe.num_answers,
    )
    sampling = Sampling(temperature=recipe.temperature, max_new_tokens=recipe.max_new_tokens)

    def place() -> dict[str, Any]:
        return {"documents": documents.cursor.to_state()}

    watch.consult_if_due(step, checkpoints, place())
    while watch.goes_on(step):
        drawn = draw_candidates(
            learner.policy,
            next_prompts(prompts, recipe, step, seed=derive_seed(seed, "prompts")),
            reward,
            sampling,
            compute,
            tokenizer,
            num_candidates=recipe.num_answers,
            batch_size=recipe.rollout_rows,
            seed=derive_seed(seed, "rollout", step),
        )
        plans = [
            minibatches(
                drawn.rollouts.lengths,
                recipe,
                seed=derive_seed(seed, "minibatches", step, epoch),
                num_answers=recipe.num_answers,
            )
            for epoch in range(recipe.num_epochs)
        ]
        readings = read(
            drawn.rollouts,
            [group for minibatch in plans[0] for group in minibatch],
            policy=learner.policy,
            reference=learner.reference,
            value=None,
            temperature=recipe.temperature,
            compute=compute,
        )
        comparison = compare(drawn, readings, recipe)
        learned = _update(learner, comparison, plans, documents, recipe, compute, step)
        step += 1
        watch.record(step, **describe(comparison, drawn), **learned)
        watch.consult_if_due(step, checkpoints, place())
        checkpoints.after_step(step, place())

    return watch.finish(step)


@dataclass(frozen=True, slots=True)
class Comparison:
    """An iteration's responses with what each is worth beside the others to its prompt; fixed before the updates.

    Attributes:
        rollouts: N = P·K responses.
        readings: what policy and reference said of them.
        mask_NR: 1 on response tokens.
        reward_PK: what was compared.
        advantage_N: of each response.
    """

    rollouts: Rollouts
    readings: Readings
    mask_NR: Tensor
    reward_PK: Tensor
    advantage_N: Tensor


def compare(drawn: Candidates, readings: Readings, recipe: GroupRecipe) -> Comparison:
    """Return the responses with their advantages.

    An answer that the limit cut off is scored as it stands, less the penalty; where the KL is priced in the reward, β
    times that of the whole answer is taken off too.
    """
    mask_NR = drawn.rollouts.mask()
    reward_PK = drawn.score_PK - recipe.unfinished_penalty * ~drawn.finished()
    if recipe.kl_in == "reward":
        k1_NR = kl_estimate(readings.logprob_NR, readings.reference_logprob_NR, estimator="k1")
        reward_PK = reward_PK - recipe.kl_coef * (k1_NR * mask_NR).sum(1).view(reward_PK.shape)
    advantage_PK = group_advantages(reward_PK, kind=recipe.advantage)
    return Comparison(drawn.rollouts, readings, mask_NR, reward_PK, advantage_PK.flatten())


def describe(comparison: Comparison, drawn: Candidates) -> dict[str, float]:
    """Return an iteration's numbers before its updates; see docs/stages/group.md."""
    deviation_P = comparison.reward_PK.std(1, correction=0)
    return {
        **rollout_numbers(comparison.rollouts, comparison.readings, comparison.mask_NR, drawn.score_PK.flatten()),
        "group_deviation": deviation_P.mean().item(),
        "flat_groups": (deviation_P < 1e-6).float().mean().item(),
    }


def _update(
    learner: Learner,
    comparison: Comparison,
    plans: Sequence[Sequence[Sequence[Sequence[int]]]],
    documents: PackedBatches,
    recipe: GroupRecipe,
    compute: Compute,
    step: int,
) -> dict[str, float]:
    """Take one step of the policy a minibatch; return the iteration's means of losses and norms."""
    rate = warmup_rate(step, peak=recipe.learning_rate, warmup_steps=recipe.warmup_iterations)
    sums: Counter[str] = Counter()
    old_NR, mask_NR = comparison.readings.logprob_NR, comparison.mask_NR
    latest_NR = old_NR.clone()
    for minibatch in (minibatch for plan in plans for minibatch in plan):
        done = differentiate(
            {
                "policy": _policy_parts(learner.policy, comparison, minibatch, recipe, compute, latest_NR),
                **ptx_parts(learner.policy, documents, recipe, compute),
            }
        )
        sums.update(learner.step(done, rate, ptx_coef=recipe.ptx_coef))
    num_steps = sum(map(len, plans))
    return {
        **{name: total / num_steps for name, total in sums.items()},
        "approx_kl": approximate_kl(latest_NR, old_NR, mask_NR).item(),
        "clip_fraction": clip_fraction(latest_NR, old_NR, mask_NR, clip=recipe.clip).item(),
        "rate": rate,
    }


def _policy_parts(
    policy: LanguageModel,
    comparison: Comparison,
    minibatch: Sequence[Sequence[int]],
    recipe: GroupRecipe,
    compute: Compute,
    latest_NR: Tensor,
) -> list[LossPart]:
    """Return the parts of a minibatch's loss, which note log-probabilities in `latest_NR`."""
    members = torch.tensor([index for group in minibatch for index in group])
    weight_N = torch.zeros_like(comparison.advantage_N)
    weight_N[members] = response_weights(
        comparison.mask_NR[members].sum(1), normalization=recipe.normalization, longest=recipe.max_new_tokens
    )

    def part_of(group: Sequence[int]) -> LossPart:
        layout = lay_out(comparison.rollouts, group, context=policy.config.max_positions, device=compute.device)
        rows = torch.tensor(group)
        here = rows, slice(0, layout.num_steps)
        mask_GR, old_GR, reference_GR = (
            grid_NR[here].to(compute.device)
            for grid_NR in (
                comparison.mask_NR,
                comparison.readings.logprob_NR,
                comparison.readings.reference_logprob_NR,
            )
        )
        weight_G1 = weight_N[rows, None].to(compute.device)
        # A weight above 0 passes through the surrogate's min and clamp: it may stand in the advantage.
        pushed_GR = (weight_G1 * comparison.advantage_N[rows, None].to(compute.device)).expand_as(mask_GR)

        def loss() -> Tensor:
            logprob_GR = response_logprobs(policy, layout, temperature=recipe.temperature, compute=compute)
            latest_NR[here] = logprob_GR.detach().cpu()
            if recipe.surrogate == "clipped":
                loss = clipped_policy_loss(logprob_GR, old_GR, pushed_GR, mask_GR, clip=recipe.clip, denominator=1)
            else:
                loss = reinforce_loss(logprob_GR, pushed_GR, mask_GR)
            if recipe.kl_in == "reward":
                return loss
            kl_GR = kl_estimate(logprob_GR, reference_GR, estimator="k2" if recipe.kl_in == "k2_loss" else "k3")
            return loss + recipe.kl_coef * masked_sum(weight_G1 * kl_GR, mask_GR)

        return LossPart(policy, loss)

    return [part_of(group) for group in minibatch]
