"""Direct preference: learn from rankings, or thumbs, without a reward model and without sampling.

The policy's log-probabilities, less those of the model it was, are an implicit reward, and rankings are fitted with it
as a reward model would fit them: a prompt with all its answers is one element of a batch, read once, and all pairs of
its answers count. Four losses (`objectives/direct.py`): DPO, IPO, SimPO, KTO. KTO needs no pairs, and so learns from
thumbs as well, each an opinion of one answer.

Departures: the papers have two answers a prompt and weigh pairs alike, here prompts weigh alike; AdamW and a cosine in
the place of RMSprop and a constant rate.

With an adapter, LoRA learns over one set of weights, and the reference is the model without it.

Input: a supervised model, rankings or thumbs. Output: a model folder. Metrics a step: `loss`, those of `pair_sums` as
means over the step's pairs, those of `thumb_numbers`, `grad_norm`, `rate`; before the first step, every
`evaluate_steps` and at the end the same on prompts that were not trained on, and what the policy answers to these.
docs/stages/direct.md explains each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import fmean
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sanbai.data.rankings import Ranking
from sanbai.data.thumbs import ThumbedAnswer
from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.errors import UsageError
from sanbai.foundation.parallel import map_parts
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed, torch_generator
from sanbai.foundation.stage import Stage
from sanbai.generation.answering import generate
from sanbai.generation.precision import decoding_precision
from sanbai.generation.sampling import Sampling
from sanbai.model.adapters.adapter import Adapted
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.adapters.shared import adapt, copy_learning
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import save_model
from sanbai.objectives.direct import dpo_loss, ipo_loss, kl_baseline, kto_loss, pair_sums, simpo_loss, thumb_numbers
from sanbai.objectives.language import token_logprobs
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.adapter_folder import NO_ADAPTER, save_merged
from sanbai.training.checkpoint import Checkpoints, Weights
from sanbai.training.gradients import LossPart, add_gradient, differentiate
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.order import endless_order
from sanbai.training.ranked_prompts import (
    RankedPrompt,
    batch_of,
    collect_ranked_prompts,
    num_batches,
    split_by_prompt,
    stack_preferences,
    stack_thumbs,
    to_grid,
)
from sanbai.training.rollouts import Rollouts, response_kl
from sanbai.training.schedule import cosine_rate
from sanbai.training.sequences import group_by_tokens
from sanbai.training.trees import Tree, pack_trees

Method = Literal["dpo", "ipo", "simpo", "kto"]
#: Fields that only one method reads.
OWN_FIELDS: dict[str, Method] = {
    "label_smoothing": "dpo",
    "margin": "simpo",
    "desirable_weight": "kto",
    "undesirable_weight": "kto",
    "learn_from": "kto",
}
#: Answers sampled at once for the evaluation.
SAMPLED_ROWS = 64


class DirectRecipe(RecipeSection):
    """Section `[direct]`. Defaults: DPO's (Rafailov et al. 2023, arXiv:2305.18290, appendix B)."""

    method: Method = "dpo"
    """`dpo`: Bradley-Terry on the implicit reward; `ipo`: a squared distance to a fixed margin (Azar et al. 2023);
    `simpo`: Bradley-Terry on mean log-probabilities, without a reference in the loss (Meng et al. 2024); `kto`: good
    and bad answers apart, each against a baseline (Ethayarajh et al. 2024)."""
    beta: float = Field(default=0.1, gt=0.0)
    """β of the implicit reward; τ of `ipo`, whose margin is 1/(2τ) nats a token; of `simpo`, whose reward is a mean, 2
    to 10."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Of `dpo`: share of the rankings' pairs that are taken to be wrong (conservative DPO)."""
    margin: float = Field(default=0.0, ge=0.0)
    """Of `simpo`: γ, by how much the better answer's reward is to be higher; its authors' is 0.25 to 0.8 times β."""
    desirable_weight: float = Field(default=1.0, gt=0.0)
    """Of `kto`: λ_D, weight of answers that were placed above another, or got a thumb up."""
    undesirable_weight: float = Field(default=1.0, gt=0.0)
    """Of `kto`: λ_U, weight of answers that were placed below another, or got a thumb down. With n_D and n_U verdicts,
    λ_D n_D / (λ_U n_U) should be near 1 (TRL warns outside 1 to 4/3): weigh the rarer ones more."""
    learn_from: Literal["rankings", "thumbs", "both"] = "rankings"
    """Of `kto`: from rankings, from the thumbs that people gave in the chat and let be used, or from both."""
    num_epochs: int = Field(default=1, ge=1, le=100)
    """How often the rankings are read; more than once soon over-fits."""
    batch_prompts: int = Field(default=64, ge=1)
    """Prompts a step, each with all its answers; at least 2 for `kto`, whose baseline is of other prompts' answers."""
    micro_batch_tokens: int = Field(default=16_384, ge=1)
    """Tokens computed at once; a prompt stays whole. Changes memory and speed, not the mathematics."""
    learning_rate: float = Field(default=1e-6, gt=0.0, le=1.0)
    """Peak rate; a half cosine takes it down to 10 %."""
    warmup_steps: int = Field(default=150, ge=0)
    """Steps of a rising rate."""
    validation_share: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the prompts kept out of training, with all their rankings."""
    num_sampled_prompts: int = Field(default=64, ge=1)
    """Most of these that the policy answers at an evaluation, for its KL to the reference and its length."""
    max_prompt_tokens: int = Field(default=1024, ge=8)
    """Longer prompts lose their beginning."""
    max_response_tokens: int = Field(default=1024, ge=1)
    """Longer answers are left out of their ranking; the longest that is sampled."""
    evaluate_steps: int = Field(default=100, ge=1)
    """Steps between two evaluations on the held-out prompts."""
    checkpoint_steps: int = Field(default=100, ge=1)
    """Steps between two checkpoints."""
    optimizer: OptimizerRecipe = OptimizerRecipe()
    """Section `[direct.optimizer]`."""

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        for name, method in OWN_FIELDS.items():
            if self.method != method and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f'{name} is of method = "{method}" alone, and method is "{self.method}"; leave it out')
        if self.method == "kto" and self.batch_prompts < 2:
            raise ValueError('method = "kto" wants batch_prompts of 2 at least: its baseline is of other prompts')
        return self


def num_direct_steps(recipe: DirectRecipe, num_prompts: int) -> int:
    """Return the steps in which `num_prompts` training prompts are read `num_epochs` times."""
    return num_batches(num_prompts, size=recipe.batch_prompts, num_epochs=recipe.num_epochs)


def train_direct(
    stage: Stage,
    recipe: DirectRecipe,
    compute: Compute,
    *,
    policy: LanguageModel,
    tokenizer: Tokenizer,
    rankings: Iterable[Ranking],
    thumbs: Sequence[ThumbedAnswer] = (),
    adapter: AdapterRecipe = NO_ADAPTER,
) -> dict[str, Any]:
    """Fit a policy to rankings and thumbs and write it into the stage's folder.

    With an adapter only that learns, and both it and the model with it merged are written.

    Args:
        stage: one step of its run is one optimizer step.
        recipe: section `[direct]`.
        compute: threads, precision, device; already applied to the process.
        policy: the supervised model, which is also the reference. Changed in place, unless an adapter learns.
        tokenizer: saved beside the model.
        rankings: all that may be learned from, those of held-out labelers already left out.
        thumbs: the same; for `kto` alone.
        adapter: section `[adapter]`; its dropout is not used.

    Returns:
        The last evaluation, steps, prompts, thumbs to learn from, and with an adapter the number of its parameters.

    Raises:
        DataError: no strict preference and no thumb.
        UsageError: the adapter is no LoRA.
        ModelError: it does not fit the model.
        Interrupted: asked to stop; the state is saved.
    """
    assert recipe.method == "kto" or not thumbs, "the others compare"
    limits = {"max_prompt_tokens": recipe.max_prompt_tokens, "max_response_tokens": recipe.max_response_tokens}
    elements = collect_ranked_prompts(tokenizer, rankings, thumbs, **limits)
    training, held_out = split_by_prompt(elements, recipe.validation_share, seed=stage.seed)
    base, adapted = policy.eval(), None
    if adapter.method == "none":
        policy = base.to(compute.device)
    else:
        policy, adapted = _adapt(stage, base, adapter, compute)
    reference = copy_learning(policy)  # with an adapter: one of its own, whose products stay 0, over the same weights
    optimizer = Optimizer(policy, recipe.optimizer)
    checkpoints = Checkpoints(stage.run, recipe.checkpoint_steps, model=Weights(policy), optimizer=optimizer)
    step, _ = checkpoints.resume()

    def evaluate() -> dict[str, float]:
        if not held_out:
            return {}
        seed = derive_seed(stage.seed, "direct", "sampled")
        metrics = _validate(policy, reference, held_out, recipe, compute, tokenizer, seed=seed)
        stage.run.record(step, **metrics)
        return metrics

    num_steps = num_direct_steps(recipe, len(training))
    if step == 0:
        evaluate()
    while step < num_steps:
        batch = batch_of(
            training,
            step,
            size=recipe.batch_prompts,
            num_epochs=recipe.num_epochs,
            seed=derive_seed(stage.seed, "direct", "order"),
        )
        numbers = _prefer(policy, reference, batch, recipe, compute, learn=True)
        rate = cosine_rate(step, peak=recipe.learning_rate, num_steps=num_steps, warmup_steps=recipe.warmup_steps)
        grad_norm = optimizer.step(rate)
        step += 1
        stage.run.record(step, **numbers, grad_norm=grad_norm, rate=rate)
        if step % recipe.evaluate_steps == 0 and step < num_steps:
            evaluate()
        checkpoints.after_step(step, {})

    metrics: dict[str, Any] = evaluate()
    metrics |= {"steps": step, "num_prompts": len(training), "num_validation_prompts": len(held_out)}
    if thumbs:
        counts = stack_thumbs(training).sum((0, 1)).long().tolist()
        metrics |= dict(zip(("num_thumbs_up", "num_thumbs_down"), counts, strict=True))
    if adapted is None:
        save_model(policy, stage.folder, tokenizer)
        return metrics
    save_merged(adapted, base, stage.folder, tokenizer, base=stage.parents.get("start"))
    return {**metrics, "adapter_parameters": sum(each.numel() for each in adapted.parameters().values())}


def check_adapter(adapter: AdapterRecipe) -> None:
    """Refuse an adapter that begins as something else than nothing: the reference would not be the model.

    Raises:
        UsageError: so it is.
    """
    if adapter.method not in {"none", "lora"}:
        raise UsageError(
            f"adapter.method {adapter.method} changes a model before it has learned; direct preference wants lora or "
            "none, so that the reference is the model without it"
        )


def _adapt(
    stage: Stage, base: LanguageModel, adapter: AdapterRecipe, compute: Compute
) -> tuple[LanguageModel, Adapted]:
    """Return a policy of the base's weights with a fresh LoRA, placed; the base itself has none."""
    check_adapter(adapter)
    adapted = adapt(base, adapter, torch_generator(stage.seed, "direct", "adapter"), compute)
    policy = adapted.model
    assert isinstance(policy, LanguageModel), "an adapter leaves its kind to a model"
    return policy, adapted


def answer_logprobs(model: LanguageModel, trees: Sequence[Tree], compute: Compute) -> Tensor:
    """Return logprob_N of whole answers in nats, `<|end|>` included; every prompt and answer is read once.

    Args:
        model: carries the gradient.
        trees: prompts with their answers.
        compute: precision of the matrix products; log-probabilities are float32.
    """
    device = model.head_weight.device
    packed = pack_trees(trees, context=model.config.max_positions, device=device)
    with autocast(compute):
        hidden_BTD = model.trunk(
            packed.tokens_BT,
            positions_BT=packed.positions_BT,
            segments_BT=packed.segments_BT,
            branches_BT=packed.branches_BT,
        )
        logits_MV = model.logits(hidden_BTD.flatten(0, 1).index_select(0, packed.before_M))
    logprob_M = token_logprobs(logits_MV, packed.tokens_BT.flatten().index_select(0, packed.token_M))
    return torch.zeros(len(packed.last_N), device=device).index_add(0, packed.answer_M, logprob_M)


def _prefer(
    policy: LanguageModel,
    reference: LanguageModel,
    batch: Sequence[RankedPrompt],
    recipe: DirectRecipe,
    compute: Compute,
    *,
    learn: bool,
) -> dict[str, float]:
    """Return the loss of whole prompts, and numbers of their pairs and thumbs; where `learn`, add the gradient."""
    baseline = _baseline(policy, reference, batch, recipe, compute)
    batch = sorted(batch, key=lambda element: element.tree.num_tokens)  # like lengths together leave little padding
    groups = group_by_tokens([element.tree.num_tokens for element in batch], max_tokens=recipe.micro_batch_tokens)
    sums: list[dict[str, float]] = [{} for _ in groups]
    said: list[tuple[Tensor, Tensor]] = [(torch.zeros(0), torch.zeros(0, 2)) for _ in groups]

    def loss_of(number: int) -> Tensor:
        part = [batch[index] for index in groups[number]]
        trees = [element.tree for element in part]
        # Graph and all, as the policy: without one attention takes other kernels, and equal weights would not be equal.
        reference_BK = to_grid(answer_logprobs(reference, trees, compute).detach(), part)
        logprob_BK = to_grid(answer_logprobs(policy, trees, compute), part)
        preference_BKK, thumbs_BK2 = stack_preferences(part).to(logprob_BK), stack_thumbs(part).to(logprob_BK)
        length_BK = to_grid(torch.tensor([len(answer) for tree in trees for answer in tree.answers]), part)
        length_BK = length_BK.clamp_min(1).to(logprob_BK)
        reward_BK = implicit_rewards(logprob_BK.detach(), reference_BK, length_BK, recipe)
        found = pair_sums(reward_BK, logprob_BK.detach(), reference_BK, preference_BKK)
        sums[number] = {name: total.item() for name, total in found.items()}
        said[number] = (logprob_BK.detach() - reference_BK).flatten().cpu(), thumbs_BK2.flatten(0, 1).cpu()
        verdicts_BK2 = torch.stack([preference_BKK.sum(2), preference_BKK.sum(1)], dim=2) + thumbs_BK2
        return _loss(
            logprob_BK,
            reference_BK,
            length_BK,
            preference_BKK,
            verdicts_BK2,
            baseline,
            recipe,
            denominator=len(batch),
        )

    if learn:
        parts = [LossPart(policy, partial(loss_of, number)) for number in range(len(groups))]
        done = differentiate({"loss": parts})["loss"]
        add_gradient(policy, done.gradient)
        loss = done.loss
    else:
        with torch.no_grad():
            loss = torch.stack(map_parts(loss_of, range(len(groups)))).sum().item()
    num_pairs = sum(float(element.preference_KK.sum()) for element in batch)
    totals: Counter[str] = Counter()
    for part_sums in sums:
        totals.update(part_sums)
    means = {name: total / num_pairs for name, total in totals.items()} if num_pairs else {}
    logratio_N, thumbs_N2 = (torch.cat(tensors) for tensors in zip(*said, strict=True))
    return {"loss": loss, **means, **thumb_numbers(logratio_N, thumbs_N2)}


def implicit_rewards(
    logprob_BK: Tensor, reference_logprob_BK: Tensor, length_BK: Tensor, recipe: DirectRecipe
) -> Tensor:
    """Return reward_BK, what the recipe's method compares answers by.

    Args:
        logprob_BK: log π, nats of the whole answer.
        reference_logprob_BK: log ρ.
        length_BK: tokens of the answer, at least 1.
        recipe: method and β.
    """
    match recipe.method:
        case "dpo" | "kto":
            return recipe.beta * (logprob_BK - reference_logprob_BK)
        case "ipo":
            return recipe.beta * (logprob_BK - reference_logprob_BK) / length_BK
        case "simpo":
            return recipe.beta * logprob_BK / length_BK


def _loss(
    logprob_BK: Tensor,
    reference_logprob_BK: Tensor,
    length_BK: Tensor,
    preference_BKK: Tensor,
    verdicts_BK2: Tensor,
    baseline: Tensor,
    recipe: DirectRecipe,
    *,
    denominator: float,
) -> Tensor:
    """Return the part of the recipe's loss that some prompts of a batch of `denominator` prompts have.

    `verdicts_BK2` is how often each answer was called good, and how often bad, by pairs and thumbs.
    """
    logratio_BK = logprob_BK - reference_logprob_BK
    match recipe.method:
        case "dpo":
            return dpo_loss(
                logratio_BK,
                preference_BKK,
                beta=recipe.beta,
                label_smoothing=recipe.label_smoothing,
                denominator=denominator,
            )
        case "ipo":
            return ipo_loss(logratio_BK / length_BK, preference_BKK, tau=recipe.beta, denominator=denominator)
        case "simpo":
            return simpo_loss(
                logprob_BK / length_BK, preference_BKK, beta=recipe.beta, margin=recipe.margin, denominator=denominator
            )
        case "kto":
            good_BK, bad_BK = verdicts_BK2.unbind(2)
            return kto_loss(
                logratio_BK,
                good_BK,
                bad_BK,
                baseline,
                beta=recipe.beta,
                desirable_weight=recipe.desirable_weight,
                undesirable_weight=recipe.undesirable_weight,
                denominator=denominator,
            )


@torch.no_grad()
def _baseline(
    policy: LanguageModel,
    reference: LanguageModel,
    batch: Sequence[RankedPrompt],
    recipe: DirectRecipe,
    compute: Compute,
) -> Tensor:
    """Return KTO's baseline, from each prompt with an answer to the next one; 0 for other methods and a lone prompt."""
    if recipe.method != "kto" or len(batch) < 2:
        return torch.zeros((), device=policy.head_weight.device)
    following = [*batch[1:], batch[0]]
    trees = [Tree(here.tree.prompt, (other.tree.answers[0],)) for here, other in zip(batch, following, strict=True)]

    def read(group: Sequence[int]) -> Tensor:
        part = [trees[index] for index in group]
        return answer_logprobs(policy, part, compute) - answer_logprobs(reference, part, compute)

    groups = group_by_tokens([tree.num_tokens for tree in trees], max_tokens=recipe.micro_batch_tokens)
    return kl_baseline(torch.cat(map_parts(read, groups)))


def _validate(
    policy: LanguageModel,
    reference: LanguageModel,
    held_out: Sequence[RankedPrompt],
    recipe: DirectRecipe,
    compute: Compute,
    tokenizer: Tokenizer,
    *,
    seed: int,
) -> dict[str, float]:
    """Return the numbers of held-out prompts, and those of the policy's own answers to the first of them."""
    numbers = _prefer(policy, reference, held_out, recipe, compute, learn=False)
    num_sampled = min(recipe.num_sampled_prompts, len(held_out))
    sampled = endless_order(len(held_out), start=0, count=num_sampled, seed=seed)
    prompts = [held_out[index].tree.prompt for index in sampled]
    completions = generate(
        policy,
        prompts,
        Sampling(max_new_tokens=recipe.max_response_tokens),
        seeds=[derive_seed(seed, row) for row in range(len(prompts))],
        stop_ids=tokenizer.reserved.ends(),
        batch_size=SAMPLED_ROWS,
        precision=decoding_precision(compute),
    )
    kl = response_kl(
        Rollouts(prompts, completions),
        policy,
        reference,
        temperature=1.0,
        compute=compute,
        max_tokens=recipe.micro_batch_tokens,
    )
    return {
        **{f"validation_{name}": number for name, number in numbers.items()},
        "kl": kl,
        "length": fmean(len(completion.tokens) for completion in completions),
        "finished": fmean(completion.finish_reason == "stop" for completion in completions),
    }
