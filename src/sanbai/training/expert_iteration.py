"""Expert iteration: answer, keep what the reward model likes best, imitate it, and again.

Anthony et al. 2017 (arXiv:1705.08439) named it; with the best of n answers to each prompt it is RAFT (Dong et al. 2023,
arXiv:2304.06767), with all answers above a quantile of the rewards one growing step of ReST (Gulcehre et al. 2023,
arXiv:2308.08998). What is learned is the policy's own answers, by the loss of supervised fine-tuning: there is no
ratio, no advantage and no price on KL. Pretraining rows, averaged weights and the brake are PPO's (`ppo.py`): the
brake's KL budget is all that keeps the policy near where it began.

An answer that the limit cut off is never imitated: it would teach not to end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.candidates import Candidates, draw_candidates
from sanbai.training.checkpoint import Checkpoints, cursor_in
from sanbai.training.gradients import LossPart, differentiate
from sanbai.training.learner import Learner
from sanbai.training.players import SavePolicy
from sanbai.training.practice import PracticeRecipe, minibatches, next_prompts, open_documents, ptx_parts
from sanbai.training.rollouts import Rollouts, Score, lay_out, repeated_share, response_logprobs
from sanbai.training.schedule import warmup_rate
from sanbai.training.watch import Watch


class ExpertIterationRecipe(PracticeRecipe):
    """Section `[expert_iteration]`."""

    batch_prompts: int = Field(default=512, ge=1)
    """Prompts answered in an iteration, `num_answers` times each."""
    num_answers: int = Field(default=16, ge=2)
    """n: answers to a prompt, among which the reward model chooses."""
    choose: Literal["best", "above_quantile"] = "best"
    """Each prompt's best answer, or every answer of the iteration above a quantile of the rewards."""
    quantile: float = Field(default=0.9, gt=0.0, lt=1.0)
    """Of the rewards of an iteration's finished answers; for `above_quantile`."""


def iterate_experts(
    stage: Stage,
    recipe: ExpertIterationRecipe,
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
    """Improve a policy by its own best answers; write the best weights, by the second judge, into the stage's folder.

    Args:
        stage: one step of its run is one iteration.
        recipe: section `[expert_iteration]`.
        compute: threads, precision, device; already applied to the process.
        policy: the supervised model. Changed in place.
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
    seed = derive_seed(stage.seed, "expert iteration")
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
    checkpoints = Checkpoints(stage.run, recipe.checkpoint_iterations, **watch.saved())
    step, state = checkpoints.resume()
    documents = open_documents(
        pretraining, recipe, tokenizer, cursor_in(state, "documents"), seed=derive_seed(seed, "documents")
    )
    sampling = Sampling(temperature=recipe.temperature, max_new_tokens=recipe.max_new_tokens)

    def place() -> dict[str, Any]:
        return {"documents": documents.cursor.to_state()}

    watch.consult_if_due(step, checkpoints, place())
    while watch.goes_on(step):
        drawn = draw_candidates(
            watch.learner.policy,
            next_prompts(prompts, recipe, step, seed=derive_seed(seed, "prompts")),
            reward,
            sampling,
            compute,
            tokenizer,
            num_candidates=recipe.num_answers,
            batch_size=recipe.rollout_rows,
            seed=derive_seed(seed, "rollout", step),
        )
        rows = chosen_rows(drawn, recipe)
        chosen = drawn.rollouts.select(rows)
        plans = [
            minibatches(chosen.lengths, recipe, seed=derive_seed(seed, "minibatches", step, epoch))
            for epoch in range(recipe.num_epochs)
        ]
        learned = _imitate(watch.learner, chosen, plans, documents, recipe, compute, step)
        step += 1
        watch.record(step, **describe(drawn, rows), **learned)
        watch.consult_if_due(step, checkpoints, place())
        checkpoints.after_step(step, place())

    return watch.finish(step)


def chosen_rows(drawn: Candidates, recipe: ExpertIterationRecipe) -> list[int]:
    """Return the rows that are imitated, among those that the policy has ended itself; maybe none."""
    if recipe.choose == "best":
        return drawn.best_rows()
    finished_N, score_N = drawn.finished().flatten(), drawn.score_PK.flatten()
    if not finished_N.any():
        return []
    threshold = torch.quantile(score_N[finished_N].double(), recipe.quantile)
    return (finished_N & (score_N > threshold)).nonzero().flatten().tolist()


def describe(drawn: Candidates, rows: Sequence[int]) -> dict[str, float]:
    """Return an iteration's numbers before its updates; see docs/stages/expert-iteration.md."""
    score_N = drawn.score_PK.flatten()
    lengths = [len(response) for response in drawn.rollouts.responses]
    return {
        "reward": score_N.mean().item(),
        "best_reward": drawn.score_PK.amax(1).mean().item(),
        "length": sum(lengths) / len(lengths),
        "finished": drawn.finished().float().mean().item(),
        "repetition": repeated_share(drawn.rollouts.responses),
        "num_chosen": len(rows),
        **({"chosen_reward": score_N[list(rows)].mean().item()} if rows else {}),
    }


def _imitate(
    learner: Learner,
    chosen: Rollouts,
    plans: Sequence[Sequence[Sequence[Sequence[int]]]],
    documents: PackedBatches,
    recipe: ExpertIterationRecipe,
    compute: Compute,
    step: int,
) -> dict[str, float]:
    """Take one step of the policy a minibatch; return the iteration's means of losses and norms."""
    rate = warmup_rate(step, peak=recipe.learning_rate, warmup_steps=recipe.warmup_iterations)
    sums: Counter[str] = Counter()
    for minibatch in (minibatch for plan in plans for minibatch in plan):
        done = differentiate(
            {
                "policy": _policy_parts(learner.policy, chosen, minibatch, recipe, compute),
                **ptx_parts(learner.policy, documents, recipe, compute),
            }
        )
        sums.update(learner.step(done, rate, ptx_coef=recipe.ptx_coef))
    num_steps = sum(map(len, plans))
    return {**{name: total / num_steps for name, total in sums.items()}, "rate": rate}


def _policy_parts(
    policy: LanguageModel,
    chosen: Rollouts,
    minibatch: Sequence[Sequence[int]],
    recipe: ExpertIterationRecipe,
    compute: Compute,
) -> list[LossPart]:
    """Return the parts of a minibatch's loss: nats a response token, at the temperature of the answers."""
    denominator = sum(len(chosen.completions[index].tokens) for group in minibatch for index in group)

    def part_of(group: Sequence[int]) -> LossPart:
        layout = lay_out(chosen, group, context=policy.config.max_positions, device=compute.device)

        def loss() -> Tensor:
            logprob_GR = response_logprobs(policy, layout, temperature=recipe.temperature, compute=compute)
            return -logprob_GR.sum() / denominator  # 0 on padding

        return LossPart(policy, loss)

    return [part_of(group) for group in minibatch]
