"""What every way of practising shares: prompts in turn, answers, pretraining rows beside them, and the second judge.

Practice is learning from a reward model's scores of a policy's own answers. The ways differ in what they make of the
scores (`ppo.py`, ...), and in nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from sanbai.data.packing import Cursor, Items, PackedBatch, PackedBatches
from sanbai.foundation.device import Compute
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed, numpy_generator
from sanbai.generation.answering import generate
from sanbai.generation.precision import decoding_precision
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel
from sanbai.objectives.kl import kl_estimate
from sanbai.objectives.masked import masked_mean, masked_sum
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.alarms import AlarmsRecipe
from sanbai.training.gradients import LossPart
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.order import endless_order
from sanbai.training.rollouts import Readings, Rollouts, repeated_share
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
    rows: Sequence[int] | None = None,
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
        rows: the prompts' numbers, where they are some of those that are answered with this seed; None: all.
        before_step: called before each token of a batch; what it raises ends the work.
    """
    completions = generate(
        policy,
        prompts,
        Sampling(temperature=recipe.temperature, max_new_tokens=recipe.max_new_tokens),
        seeds=[derive_seed(seed, row) for row in (range(len(prompts)) if rows is None else rows)],
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
    policy: LanguageModel, documents: Iterator[PackedBatch], recipe: PracticeRecipe, compute: Compute
) -> dict[str, list[LossPart]]:
    """Return the parts of a minibatch's `ptx` loss, γ in it; none, and no row read, where γ is 0."""
    if not recipe.ptx_coef:
        return {}
    rows = max(1, recipe.micro_batch_tokens // recipe.ptx_row_length)
    return {"ptx": row_parts(policy, next(documents), compute, micro_batch_rows=rows, coefficient=recipe.ptx_coef)}


def rollout_numbers(
    rollouts: Rollouts,
    readings: Readings,
    mask_NR: Tensor,
    score_N: Tensor,
    *,
    behaviour_logprob_NR: Tensor | None = None,
) -> dict[str, float]:
    """Return what an iteration's answers say before they are learned from; docs/stages/ppo.md explains each number.

    Args:
        rollouts: the answers.
        readings: of the policy before its update.
        mask_NR: 1 on response tokens.
        score_N: the reward model's.
        behaviour_logprob_NR: what the policy that answered said, where that is another.
    """
    behaviour_NR = readings.logprob_NR if behaviour_logprob_NR is None else behaviour_logprob_NR
    k1_NR, k3_NR = (
        kl_estimate(readings.logprob_NR, readings.reference_logprob_NR, estimator=estimator)
        for estimator in ("k1", "k3")
    )
    num_responses = len(score_N)
    mismatch_NR = (rollouts.sampler_logprobs() - behaviour_NR) * mask_NR
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
