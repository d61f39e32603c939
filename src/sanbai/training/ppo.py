"""Practice: PPO against a reward model, kept near the supervised policy, with pretraining mixed in (PPO-ptx).

InstructGPT's loop (Ouyang et al. 2022, section 3.5 and appendix C.4): the policy answers a batch of prompts; the
reward model scores each answer once; every token pays β · KL to the frozen supervised policy; a value model that began
as the reward model says what was to be expected; a few minibatches move policy and value, each policy step together
with γ times the gradient of pretraining text.

Where the paper is silent: λ 0.95, value clip 0.2 and whitening over the iteration's response tokens are those of
lm-human-preferences (Ziegler et al. 2019); the pretraining loss is a mean over tokens; an answer cut by the limit
loses `unfinished_penalty`. Sampling is never warped (no top-p): log-probabilities would be another distribution's.

With `staleness` 1, each batch is answered by the policy from before the last update, so that answering and learning can
go on side by side on different machines (`roles.py`, `ahead.py`). Policy and critic then read the batch anew before the
update, which is plain PPO from there on, but that a token counts as often as the policy would rather have drawn it
(`importance_weights`).

`describe` gives an iteration's metrics; docs/stages/ppo.md explains each. A run that is asked to stop leaves within an
iteration, even within an update, and goes on there (`buffer.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbai.data.packing import Items, PackedBatch
from sanbai.foundation.device import Compute
from sanbai.foundation.parallel import map_parts
from sanbai.foundation.seeds import derive_seed
from sanbai.foundation.stage import Stage
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import save_model
from sanbai.objectives.advantage import generalized_advantages, token_rewards
from sanbai.objectives.kl import kl_estimate
from sanbai.objectives.masked import masked_mean, whiten
from sanbai.objectives.ppo import (
    approximate_kl,
    clip_fraction,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    importance_weights,
)
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.ahead import Ahead
from sanbai.training.buffer import Buffer, Gathered
from sanbai.training.checkpoint import Checkpoints, Saved, Weights, cursor_in
from sanbai.training.gradients import (
    Differentiated,
    Gradient,
    LossPart,
    Place,
    Sums,
    add_gradient,
    differentiate,
    gradient_of,
)
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
)
from sanbai.training.roles import (
    Models,
    RolesRecipe,
    RolloutWorker,
    Workers,
    answer,
    open_workers,
    read_among,
    score,
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
    staleness: int = Field(default=0, ge=0, le=1)
    """Updates between the policy that answers a batch and the one that learns from it; 1: both can work at once."""
    importance_cap: float = Field(default=2.0, ge=1.0)
    """Of `staleness` 1: most that a token counts for, where the policy would now draw it rather than then."""
    roles: RolesRecipe = RolesRecipe()
    """Who answers and differentiates, and where."""


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
    learner, roles, leave_if_asked = watch.learner, recipe.roles, stage.run.raise_if_stopping
    critic = Critic(value.to(compute.device).eval(), Optimizer(value, recipe.optimizer))
    price = KlController(recipe.kl_coef, kind=recipe.kl_controller, target=recipe.kl_target, horizon=recipe.kl_horizon)
    buffer = Buffer()
    answering = Models(learner.policy, None if recipe.staleness else critic.value)
    rollout_worker = RolloutWorker(
        answering, learner.reference, reward, recipe, compute, tokenizer, leave_if_asked=leave_if_asked
    )
    learner_worker = LearnerWorker(Models(learner.policy, critic.value), recipe, compute, leave_if_asked)
    with (
        closing(open_workers(rollout_worker, roles.rollout_workers, roles, leave_if_asked)) as rollout_workers,
        closing(open_workers(learner_worker, roles.learners, roles, leave_if_asked)) as learners,
        closing(Ahead(rollout_workers)) as ahead,
    ):
        source = Source(rollout_workers, prompts, recipe, stage.seed)
        parts = {**watch.saved(), **critic.saved(), "kl_controller": price, "buffer": buffer, "ahead": ahead}
        checkpoints = Checkpoints(stage.run, recipe.checkpoint_iterations, **parts)
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

        def next_batch() -> Gathered:
            found = ahead.result()
            if found is None:
                rollout_workers.load(answering.weights())
                found = source.gather(step)
            if not recipe.staleness:
                return found
            return read_anew(found, source.groups(found.rollouts, step), learner_worker)

        ahead.begin_again(partial(source.gather, step if buffer.gathered is None else step + 1))
        watch.consult_if_due(step, checkpoints, place())
        while watch.goes_on(step):
            with checkpoints.saving_if_stopped(step, place()):
                gathered = buffer.gathered
                if gathered is None:
                    gathered = buffer.fill(next_batch())
                    ahead.clear()
                if recipe.staleness and ahead.is_empty and step + 1 < recipe.num_iterations:
                    ahead.begin(partial(source.gather, step + 1), answering.weights())
            experience = weigh(gathered, recipe, kl_coef=price.coef)
            rates = [
                warmup_rate(step, peak=peak, warmup_steps=recipe.warmup_iterations)
                for peak in (recipe.learning_rate, recipe.value_learning_rate)
            ]
            for minibatch in buffer.left_of(chain.from_iterable(source.plan(gathered.rollouts, step))):
                with checkpoints.saving_if_stopped(step, place()):
                    rows = next(documents) if recipe.ptx_coef else None
                    work = Minibatch(experience, minibatch, rows)
                    done = (
                        differentiate_among(learners, learner_worker, work, buffer)
                        if roles.learners
                        else learner_worker(work, buffer)
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
class Source:
    """Where batches come from, and how they are cut: what an iteration's number says, whoever works when.

    Attributes:
        workers: answer, read and score, by the weights that they were given last.
        prompts: token ids, for practice.
        recipe: sizes.
        seed: of the stage.
    """

    workers: Workers[RolloutWorker]
    prompts: Sequence[Sequence[int]]
    recipe: PpoRecipe
    seed: int

    def gather(self, step: int) -> Gathered:
        """Return the batch of the iteration after `step` of them."""
        batch = next_prompts(self.prompts, self.recipe, step, seed=derive_seed(self.seed, "ppo", "prompts"))
        seed = derive_seed(self.seed, "ppo", "rollout", step)
        rollouts = answer(self.workers, batch, self.recipe, seed=seed)
        readings = read_among(self.workers, rollouts, self.groups(rollouts, step))
        return Gathered(rollouts, readings, score(self.workers, rollouts))

    def plan(self, rollouts: Rollouts, step: int) -> list[list[list[list[int]]]]:
        """Return the minibatches of each epoch over a batch."""
        seed = derive_seed(self.seed, "ppo", "minibatches")
        seeds = [derive_seed(seed, step, epoch) for epoch in range(self.recipe.num_epochs)]
        return [minibatches(rollouts.lengths, self.recipe, seed=each) for each in seeds]

    def groups(self, rollouts: Rollouts, step: int) -> list[list[int]]:
        """Return the groups of the first epoch, which are read as they are learned from."""
        return [group for minibatch in self.plan(rollouts, step)[0] for group in minibatch]


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
    weight_NR: Tensor | None = None
    """What each token counts for; None: 1."""


def weigh(gathered: Gathered, recipe: PpoRecipe, *, kl_coef: float) -> Experience:
    """Turn scores and KL into advantages and returns.

    An answer that the limit cut off is scored as it stands, less the penalty; nothing is expected after any answer's
    last token.

    Args:
        gathered: the responses and what the models said of them.
        recipe: γ, λ, penalty, and how much a stale token may count for.
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
    behaviour_NR, cap = gathered.behaviour_logprob_NR, recipe.importance_cap
    return Experience(
        gathered,
        mask_NR,
        reward_NR,
        advantage_NR=whiten(advantage_NR, mask_NR),
        return_NR=advantage_NR + readings.value_NR,
        weight_NR=None
        if behaviour_NR is None
        else importance_weights(readings.logprob_NR, behaviour_NR, mask_NR, cap=cap),
    )


def read_anew(
    gathered: Gathered,
    groups: Sequence[Sequence[int]],
    learner: LearnerWorker,
) -> Gathered:
    """Let policy and critic, as they are before the update, read answers of the policy as it was.

    So the first minibatch's ratio is 1 and values are clipped around what the critic says now; KL is priced by what the
    policy says now.

    Args:
        gathered: as the policy of then read it.
        groups: the update's first ones.
        learner: policy and critic.
    """
    readings = read(
        gathered.rollouts,
        groups,
        policy=learner.models.policy,
        reference=None,
        value=learner.models.value,
        temperature=learner.recipe.temperature,
        compute=learner.compute,
        before_group=learner.leave_if_asked,
    )
    return replace(
        gathered,
        readings=replace(readings, reference_logprob_NR=gathered.readings.reference_logprob_NR),
        behaviour_logprob_NR=gathered.readings.logprob_NR,
    )


def describe(experience: Experience, recipe: PpoRecipe, buffer: Buffer) -> dict[str, float]:
    """Return an iteration's numbers: of its answers, then of its update; docs/stages/ppo.md explains each."""
    gathered, mask_NR = experience.gathered, experience.mask_NR
    values_NR, old_NR, new_NR = gathered.readings.value_NR, gathered.readings.logprob_NR, buffer.latest_NR
    behaviour_NR, weight_NR = gathered.behaviour_logprob_NR, experience.weight_NR
    stale = {}
    if weight_NR is not None:
        stale["importance"] = masked_mean(weight_NR, mask_NR).item()
        stale["importance_capped"] = masked_mean((weight_NR >= recipe.importance_cap).float(), mask_NR).item()
    return {
        **rollout_numbers(
            gathered.rollouts, gathered.readings, mask_NR, gathered.score_N, behaviour_logprob_NR=behaviour_NR
        ),
        **stale,
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
        weight_GR = None if experience.weight_NR is None else experience.weight_NR[here].to(compute.device)

        def policy_loss() -> Tensor:
            logprob_GR = response_logprobs(policy, layout, temperature=recipe.temperature, compute=compute)
            buffer.latest_NR[here] = logprob_GR.detach().cpu()
            return clipped_policy_loss(
                logprob_GR,
                old_logprob_GR,
                advantage_GR,
                mask_GR,
                clip=recipe.clip,
                denominator=denominator,
                weight_BT=weight_GR,
            )

        def value_loss() -> Tensor:
            value_GR = response_values(value, layout, compute=compute)
            return clipped_value_loss(
                value_GR, old_value_GR, return_GR, mask_GR, clip=recipe.value_clip, denominator=denominator
            )

        return LossPart(policy, policy_loss), LossPart(value, value_loss)

    pairs = [parts_of(group) for group in minibatch]
    return {"policy": [first for first, _ in pairs], "value": [second for _, second in pairs]}


@dataclass(frozen=True, slots=True)
class Minibatch:
    """What one step learns from.

    Attributes:
        experience: of the iteration.
        groups: answers that are computed together.
        rows: pretraining rows, where there are any.
    """

    experience: Experience
    groups: Sequence[Sequence[int]]
    rows: PackedBatch | None


@dataclass(frozen=True)
class LearnerWorker:
    """Differentiates the losses of a minibatch, or some of their parts.

    Attributes:
        models: policy and critic.
        recipe: of the losses.
        compute: threads, precision, device.
        leave_if_asked: looked at before each part; what it raises ends the work.
    """

    models: Models
    recipe: PpoRecipe
    compute: Compute
    leave_if_asked: Callable[[], None] | None = None

    def elsewhere(self) -> LearnerWorker:
        """Return it without the run's own wish to stop."""
        return replace(self, leave_if_asked=None)

    def __call__(self, minibatch: Minibatch, buffer: Buffer) -> dict[str, Differentiated]:
        """Return all losses with their gradients; log-probabilities are noted in the buffer."""
        return differentiate(self.losses(minibatch, buffer), before_part=self.leave_if_asked)

    def differentiate(
        self, places: Sequence[Place], minibatch: Minibatch
    ) -> tuple[list[tuple[Place, float, Gradient]], Tensor]:
        """Return some parts' losses and gradients, and log-probabilities as the parts saw them, on the CPU."""
        buffer = Buffer()
        buffer.fill(minibatch.experience.gathered)
        losses = self.losses(minibatch, buffer)

        def differentiate_part(place: Place) -> tuple[Place, float, Gradient]:
            if self.leave_if_asked is not None:
                self.leave_if_asked()
            name, number = place
            loss, gradient = gradient_of(losses[name][number])
            return place, loss, [tensor.cpu() for tensor in gradient]

        return map_parts(differentiate_part, places), buffer.latest_NR

    def losses(self, minibatch: Minibatch, buffer: Buffer) -> dict[str, list[LossPart]]:
        """Return the parts of each loss."""
        policy, value, rows = self.models.policy, self.models.value, minibatch.rows
        assert value is not None
        return {
            **_practice_parts(policy, value, minibatch.experience, minibatch.groups, self.recipe, self.compute, buffer),
            **({} if rows is None else ptx_parts(policy, iter((rows,)), self.recipe, self.compute)),
        }


def differentiate_among(
    learners: Workers[LearnerWorker], own: LearnerWorker, minibatch: Minibatch, buffer: Buffer
) -> dict[str, Differentiated]:
    """Let the learners differentiate a minibatch; sum here, in the parts' order.

    Args:
        learners: do the work.
        own: this process's, whose weights they get.
        minibatch: what is learned from.
        buffer: log-probabilities are noted here.
    """
    learners.load(own.models.weights())
    places = [(name, number) for name, parts in own.losses(minibatch, buffer).items() for number in range(len(parts))]
    sums = Sums()
    for hand, (found, latest_NR) in learners.deal(LearnerWorker.differentiate, places, minibatch):
        rows = torch.tensor(
            [row for name, part in hand if name == "policy" for row in minibatch.groups[part]], dtype=torch.int64
        )
        buffer.latest_NR[rows] = latest_NR[rows]
        for place, loss, gradient in found:
            sums.add(place, loss, [tensor.to(own.compute.device) for tensor in gradient])
    return sums.done()
