"""What every way of practising shares: prompts in turn, answers, pretraining rows beside them, and the second judge.

Practice is learning from a reward model's scores of a policy's own answers. The ways differ in what they make of the
scores (`ppo.py`, ...), and in nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from sanbai.data.packing import Cursor, Items, PackedBatches
from sanbai.foundation.device import Compute
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed, numpy_generator
from sanbai.foundation.stage import Stage
from sanbai.generation.engine import decoding_precision, generate
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel
from sanbai.objectives.kl import kl_estimate
from sanbai.objectives.masked import masked_mean, masked_sum
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.alarms import Alarm, Alarms, AlarmsRecipe
from sanbai.training.brake import Brake, Verdict
from sanbai.training.checkpoint import Checkpoints, Saved, Weights
from sanbai.training.gradients import LossPart
from sanbai.training.learner import Learner
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.order import endless_order
from sanbai.training.players import SavePolicy
from sanbai.training.rollouts import Readings, Rollouts, Score, repeated_share, response_kl
from sanbai.training.rows import row_parts
from sanbai.training.sequences import group_by_tokens


class PracticeRecipe(RecipeSection):
    """Fields that every way of practising has; defaults: InstructGPT's where it states them (appendix C.4)."""

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
    warmup_iterations: int = Field(default=10, ge=0)
    """Iterations over which both rates climb from a tenth."""
    ptx_coef: float = Field(default=27.8, ge=0.0)
    """γ: weight of the pretraining loss (mean nats a token) beside the policy loss (mean a token). 0: plain PPO."""
    ptx_weight: Literal["coefficient", "target_ratio"] = "coefficient"
    """`target_ratio`: γ is chosen anew at every step, so that the pretraining gradient has `ptx_target_ratio` of the
    policy gradient's length; `ptx_coef` then only says whether there is one."""
    ptx_target_ratio: float = Field(default=1.0, gt=0.0)
    """Of `target_ratio`: length of the pretraining gradient over that of the policy's."""
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
    """The optimizer of every model that learns here."""
    alarms: AlarmsRecipe = AlarmsRecipe()
    """What is watched besides, and whether it warns or stops."""


def sample(
    policy: LanguageModel,
    prompts: Sequence[Sequence[int]],
    recipe: PracticeRecipe,
    compute: Compute,
    tokenizer: Tokenizer,
    *,
    seed: int,
    before_step: Callable[[], None] | None = None,
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
        before_step: called before each token of a batch; what it raises ends the work.
    """
    completions = generate(
        policy,
        prompts,
        Sampling(temperature=recipe.temperature, max_new_tokens=recipe.max_new_tokens),
        seeds=[derive_seed(seed, row) for row in range(len(prompts))],
        stop_ids=tokenizer.reserved.ends(),
        batch_size=recipe.rollout_rows,
        precision=decoding_precision(compute),
        before_step=before_step,
    )
    return Rollouts(prompts, completions)


def minibatches(
    lengths: Sequence[int], recipe: PracticeRecipe, *, seed: int, num_answers: int = 1
) -> list[list[list[int]]]:
    """Return one epoch's minibatches, each cut into groups that are computed together.

    Args:
        lengths: tokens of each answer with its prompt; a prompt's answers side by side.
        recipe: sizes.
        seed: of the prompts' order.
        num_answers: to a prompt, which go into the same minibatch.
    """
    prompts = numpy_generator(seed, "order").permutation(len(lengths) // num_answers).tolist()
    order = [prompt * num_answers + number for prompt in prompts for number in range(num_answers)]
    size = recipe.minibatch_prompts * num_answers
    members = [order[start : start + size] for start in range(0, len(order), size)]
    return [
        [
            [minibatch[place] for place in group]
            for group in group_by_tokens([lengths[index] for index in minibatch], max_tokens=recipe.micro_batch_tokens)
        ]
        for minibatch in members
    ]


def next_prompts(
    prompts: Sequence[Sequence[int]], recipe: PracticeRecipe, step: int, *, seed: int
) -> list[Sequence[int]]:
    """Return an iteration's prompts: all of them in a shuffled order, then in another."""
    order = endless_order(
        len(prompts),
        start=step * recipe.batch_prompts,
        count=recipe.batch_prompts,
        seed=seed,
    )
    return [prompts[index] for index in order]


def open_documents(
    items: Items, recipe: PracticeRecipe, tokenizer: Tokenizer, cursor: Cursor, *, seed: int, num_answers: int = 1
) -> PackedBatches:
    """Return the batches of pretraining rows that go with minibatches of `num_answers` answers a prompt.

    They go on from where `cursor` stands.
    """
    return PackedBatches(
        items,
        row_length=recipe.ptx_row_length,
        batch_rows=max(1, round(recipe.ptx_ratio * recipe.minibatch_prompts * num_answers)),
        seed=seed,
        pad_id=tokenizer.reserved.pad,
        cursor=cursor,
    )


def ptx_parts(
    policy: LanguageModel, documents: PackedBatches, recipe: PracticeRecipe, compute: Compute
) -> dict[str, list[LossPart]]:
    """Return the parts of a minibatch's `ptx` loss, γ in it; none, and no row read, where γ is 0."""
    if not recipe.ptx_coef:
        return {}
    rows = max(1, recipe.micro_batch_tokens // recipe.ptx_row_length)
    return {"ptx": row_parts(policy, next(documents), compute, micro_batch_rows=rows, coefficient=recipe.ptx_coef)}


def rollout_numbers(rollouts: Rollouts, readings: Readings, mask_NR: Tensor, score_N: Tensor) -> dict[str, float]:
    """Return what an iteration's answers say before they are learned from; docs/stages/ppo.md explains each number."""
    k1_NR, k3_NR = (
        kl_estimate(readings.logprob_NR, readings.reference_logprob_NR, estimator=estimator)
        for estimator in ("k1", "k3")
    )
    num_responses = len(score_N)
    mismatch_NR = (rollouts.sampler_logprobs() - readings.logprob_NR) * mask_NR
    finished = sum(completion.finish_reason == "stop" for completion in rollouts.completions)
    numbers = {
        "reward": score_N.mean(),
        "kl": masked_sum(k1_NR, mask_NR) / num_responses,
        "kl_per_token": masked_mean(k1_NR, mask_NR),
        "kl_k3": masked_sum(k3_NR, mask_NR) / num_responses,
        "entropy": masked_mean(readings.entropy_NR, mask_NR),
        "length": mask_NR.sum() / num_responses,
        "mismatch": masked_mean(mismatch_NR.abs(), mask_NR),
        "max_mismatch": mismatch_NR.abs().max(),
        "max_mismatch_ratio": mismatch_NR.sum(1).abs().max().exp(),
    }
    return {
        **{name: number.item() for name, number in numbers.items()},
        "finished": finished / num_responses,
        "repetition": repeated_share(rollouts.responses),
    }


@dataclass(frozen=True, slots=True)
class Watch:
    """The second judge in a stage that practises: what it reads, the brake that it pulls, and the alarms."""

    stage: Stage
    recipe: PracticeRecipe
    compute: Compute
    learner: Learner
    brake: Brake
    alarms: Alarms
    tokenizer: Tokenizer
    reward: Score
    judge: Score
    prompts: Sequence[Sequence[int]]
    seed: int
    save: SavePolicy

    @classmethod
    def open(
        cls,
        stage: Stage,
        recipe: PracticeRecipe,
        compute: Compute,
        *,
        policy: LanguageModel,
        tokenizer: Tokenizer,
        reward: Score,
        judge: Score,
        prompts: Sequence[Sequence[int]],
        seed: int,
        save: SavePolicy,
    ) -> Watch:
        """Gather a policy's learner, with a brake that has seen nothing yet.

        Experts' jitter and dropout are off from here on: the ratio compares one distribution with itself.
        """
        learner = Learner.gather(
            policy.to(compute.device).eval(),
            recipe.optimizer,
            ema_decay=recipe.ema_decay,
            keeps_average=recipe.keep == "average",
            ptx_target_ratio=recipe.ptx_target_ratio if recipe.ptx_weight == "target_ratio" else None,
        )
        brake = Brake(patience=recipe.patience, kl_budget=recipe.kl_budget)
        alarms = Alarms(recipe.alarms)
        return cls(stage, recipe, compute, learner, brake, alarms, tokenizer, reward, judge, prompts, seed, save)

    def saved(self) -> dict[str, Saved]:
        """Return the parts that change, by name."""
        return {**self.learner.saved(), "brake": self.brake, "alarms": self.alarms}

    def goes_on(self, step: int) -> bool:
        """Return whether there is another iteration after `step` of them."""
        return step < self.recipe.num_iterations and not self.brake.stop_reason and not self.alarms.stop_reason

    def record(self, step: int, **numbers: float) -> None:
        """Log an iteration's numbers, and what is wrong with them."""
        ringing = self.alarms.see(step, numbers)
        self.stage.run.record(step, **numbers, alarms=len(self.alarms.rung))
        self._say(ringing)

    def consult(self, step: int) -> None:
        """Show the brake what the judge says after `step` iterations, and log it."""
        verdict = ask_judge(
            step,
            self.learner,
            self.prompts,
            self.reward,
            self.judge,
            self.recipe,
            self.compute,
            self.tokenizer,
            seed=self.seed,
            before_step=self.stage.run.raise_if_stopping,
        )
        self.brake.see(verdict, self.learner.kept.tensors())
        self.stage.run.record(step, **verdict_numbers(verdict))
        self._say(self.alarms.judge(self.brake))

    def _say(self, ringing: Sequence[Alarm]) -> None:
        for alarm in ringing:
            fields = asdict(alarm)
            self.stage.run.event(f"{self.stage.name}.alarm", alarm=fields.pop("name"), **fields)
            self.stage.job.progress.say(f"{self.stage.name} {alarm}")

    def consult_if_due(self, step: int, checkpoints: Checkpoints, state: Mapping[str, Any]) -> None:
        """Consult the judge if it is time to; asked to stop meanwhile, leave at once, to consult it at the next start.

        Args:
            step: iterations done.
            checkpoints: of the run.
            state: as `Checkpoints.after_step` wants it.

        Raises:
            Interrupted: a stop was asked for, and the state is saved.
        """
        if self.is_due(step):
            with checkpoints.saving_if_stopped(step, state):
                self.consult(step)

    def is_due(self, step: int) -> bool:
        """Return whether the judge is to be asked after `step` iterations, and has not been."""
        is_new = not self.brake.verdicts or self.brake.verdicts[-1].step < step
        return is_new and (step % self.recipe.judge_iterations == 0 or step == self.recipe.num_iterations)

    def finish(self, step: int) -> dict[str, Any]:
        """Write the best weights into the stage's folder; return the artifact's metrics."""
        reason = self.brake.stop_reason or self.alarms.stop_reason or "iterations"
        self.stage.run.event(f"{self.stage.name}.stopped", reason=reason, step=step, kept=self.brake.best.step)
        policy = self.learner.policy
        Weights(policy).load(self.brake.best_weights)
        self.save(policy, self.stage.folder, self.tokenizer)
        return {
            "stop_reason": reason,
            "iterations": step,
            "kept_iteration": self.brake.best.step,
            "alarms": dict(self.alarms.rung),
            **{f"{name}_before": value for name, value in verdict_numbers(self.brake.first).items()},
            **verdict_numbers(self.brake.best),
        }


def ask_judge(
    step: int,
    learner: Learner,
    prompts: Sequence[Sequence[int]],
    reward: Score,
    judge: Score,
    recipe: PracticeRecipe,
    compute: Compute,
    tokenizer: Tokenizer,
    *,
    seed: int,
    before_step: Callable[[], None] | None = None,
) -> Verdict:
    """Let the weights that would be kept answer the held-out prompts, always with the same draws, and score them."""
    with learner.with_kept_weights() as policy:
        rollouts = sample(policy, prompts, recipe, compute, tokenizer, seed=seed, before_step=before_step)
        kl = response_kl(
            rollouts,
            policy,
            learner.reference,
            temperature=recipe.temperature,
            compute=compute,
            max_tokens=recipe.micro_batch_tokens,
            before_part=before_step,
        )
    return Verdict(
        step=step,
        judge_reward=fmean(judge(rollouts.prompts, rollouts.responses)),
        reward=fmean(reward(rollouts.prompts, rollouts.responses)),
        kl=kl,
    )


def verdict_numbers(verdict: Verdict) -> dict[str, float]:
    """Return a verdict as the log and the artifact name it."""
    return {"judge_reward": verdict.judge_reward, "judged_reward": verdict.reward, "judged_kl": verdict.kl}
