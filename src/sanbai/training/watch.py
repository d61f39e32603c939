"""The second judge over a stage that practises: what it reads, the brake that it pulls, the alarms, and the end.

Every way of practising is watched alike; what differs between them lies in their own files (`ppo.py`, `group.py`,
`expert_iteration.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from sanbai.foundation.device import Compute
from sanbai.foundation.stage import Stage
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.alarms import Alarm, Alarms
from sanbai.training.brake import Brake, Verdict
from sanbai.training.checkpoint import Checkpoints, Saved, Weights
from sanbai.training.learner import Learner
from sanbai.training.players import SavePolicy
from sanbai.training.practice import PracticeRecipe, sample
from sanbai.training.rollouts import Score, response_kl


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
