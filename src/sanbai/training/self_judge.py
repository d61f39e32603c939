"""One model that answers and judges answers, as LaMDA does (Thoppilan et al. 2022, arXiv:2201.08239, section 6.1).

    <context> <|assistant|> <response> <|end|> <attribute> <rating>

What opens the assistant's turn is LaMDA's sentinel: judging an answer goes on where writing it ended, so that with the
cache of both it costs two tokens. Attributes (sensible, specific, interesting, safe, grounded) and ratings (yes, no)
are reserved ids behind all others, which no text can write. The loss is on the rating alone; each attribute sees
context and answer and none of the other attributes (`trees.py`). Demonstrations are imitated beside, or the model would
forget to answer.

P(attribute) is the probability of yes among yes and no. `docs/stages/self-judge.md` explains the metrics.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sanbai.data.attributes import ATTRIBUTES, RatedAnswer
from sanbai.data.packing import Items, PackedBatches
from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import canonical_json
from sanbai.foundation.parallel import map_parts
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed, torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import save_model
from sanbai.model.vocabulary import extend_vocabulary
from sanbai.objectives.language import chunked_next_token_loss
from sanbai.objectives.reward import pair_accuracy
from sanbai.text.reserved import RATING_MARKERS
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.checkpoint import Checkpoints, Weights, cursor_in
from sanbai.training.gradients import LossPart, add_gradient, differentiate
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.order import endless_order
from sanbai.training.reward_model import encode_answer
from sanbai.training.rows import row_parts
from sanbai.training.schedule import cosine_rate
from sanbai.training.sequences import group_by_tokens
from sanbai.training.trees import Tree, pack_trees


class SelfJudgeRecipe(RecipeSection):
    """Section `[self_judge]`."""

    num_epochs: int = Field(default=1, ge=1, le=100)
    """How often the rated answers are read."""
    batch_answers: int = Field(default=64, ge=1)
    """Rated answers a step, with all their attributes."""
    micro_batch_tokens: int = Field(default=16_384, ge=1)
    """Tokens computed at once; changes memory, not the mathematics."""
    learning_rate: float = Field(default=9e-6, gt=0.0, le=1.0)
    """Peak rate; a half cosine takes it down to 10 %."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of a rising rate."""
    demonstration_share: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Weight m of the demonstrations: the loss is (1 - m) · mean over ratings + m · mean over the demonstrations'
    learned tokens. 0 imitates nothing, and the model forgets to answer."""
    batch_rows: int = Field(default=8, ge=1)
    """Rows of packed demonstrations a step."""
    micro_batch_rows: int = Field(default=8, ge=1)
    """Of them computed at once; changes memory, not the mathematics."""
    row_length: int = Field(default=2048, ge=2)
    """Tokens of such a row."""
    max_prompt_tokens: int = Field(default=1024, ge=8)
    """Longer contexts of rated answers lose their beginning."""
    validation_share: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the prompts whose rated answers only measure."""
    evaluate_steps: int = Field(default=200, ge=1)
    """Steps between two evaluations."""
    checkpoint_steps: int = Field(default=200, ge=1)
    """Steps between two checkpoints."""
    optimizer: OptimizerRecipe = OptimizerRecipe()
    """Section `[self_judge.optimizer]`."""


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """One element of a batch.

    Attributes:
        tree: context and answer once, then each attribute with its rating.
        attributes: what is asked, in the tree's order.
        holds: the ratings.
    """

    tree: Tree
    attributes: tuple[str, ...]
    holds: tuple[bool, ...]


def encode_rated(
    tokenizer: Tokenizer, answers: Sequence[RatedAnswer], *, max_prompt_tokens: int, max_tokens: int
) -> dict[str, list[JudgedAnswer]]:
    """Return the elements by their prompt; answers that do not fit the model are left out.

    Args:
        tokenizer: has the ratings' reserved ids.
        answers: rated.
        max_prompt_tokens: longer contexts lose their beginning.
        max_tokens: of context, answer, attribute and rating together.

    Raises:
        DataError: none is left.
    """
    ids = tokenizer.rating
    found: dict[str, list[JudgedAnswer]] = defaultdict(list)
    for answer in answers:
        row = encode_answer(tokenizer, answer.messages, answer.response, max_prompt_tokens=max_prompt_tokens)
        if len(row) + 2 > max_tokens:
            continue
        asked = tuple(answer.attributes)
        holds = tuple(answer.attributes[attribute] for attribute in asked)
        branches = tuple(
            (getattr(ids, attribute), ids.yes if held else ids.no) for attribute, held in zip(asked, holds, strict=True)
        )
        found[canonical_json(list(answer.messages))].append(JudgedAnswer(Tree(tuple(row), branches), asked, holds))
    if not found:
        raise DataError(f"none of {len(answers)} rated answers is left; rate answers at /label")
    return found


def num_self_judge_steps(recipe: SelfJudgeRecipe, num_answers: int) -> int:
    """Return the steps in which so many answers are read `num_epochs` times."""
    return -(-num_answers * recipe.num_epochs // recipe.batch_answers)


def train_self_judge(
    stage: Stage,
    recipe: SelfJudgeRecipe,
    compute: Compute,
    *,
    model: LanguageModel,
    tokenizer: Tokenizer,
    answers: Sequence[RatedAnswer],
    demonstrations: Items,
) -> dict[str, Any]:
    """Teach a model to judge answers, its own among them, and write it into the stage's folder.

    Args:
        stage: one step of its run is one optimizer step.
        recipe: section `[self_judge]`.
        compute: threads, precision, device; already applied to the process.
        model: one that answers; left as it is.
        tokenizer: its; what is saved has further reserved ids.
        answers: rated by people.
        demonstrations: `encode_demonstrations` of conversations; not read where `demonstration_share` is 0.

    Returns:
        The last evaluation, and how many answers were trained and measured on, and left out because they do not fit.

    Raises:
        DataError: no rated answer is left to train on.
        Interrupted: asked to stop; the state is saved.
    """
    tokenizer = tokenizer.with_markers(list(RATING_MARKERS.values()))
    generator = torch_generator(stage.seed, "self judge", "vocabulary")
    model = extend_vocabulary(model, tokenizer.vocab_size, generator).to(compute.device)
    context = model.config.max_positions
    training, held_out = _split(
        encode_rated(tokenizer, answers, max_prompt_tokens=recipe.max_prompt_tokens, max_tokens=context),
        recipe.validation_share,
        seed=stage.seed,
    )
    optimizer = Optimizer(model, recipe.optimizer)
    checkpoints = Checkpoints(stage.run, recipe.checkpoint_steps, model=Weights(model), optimizer=optimizer)
    step, state = checkpoints.resume()
    imitated = PackedBatches(
        demonstrations,
        row_length=recipe.row_length,
        batch_rows=recipe.batch_rows,
        seed=derive_seed(stage.seed, "self judge", "demonstrations"),
        pad_id=tokenizer.reserved.pad,
        cursor=cursor_in(state, "demonstrations"),
    )
    share, order_seed = recipe.demonstration_share, derive_seed(stage.seed, "self judge", "order")
    weights = {"loss": 1 - share, "demonstration_loss": share}
    num_steps = num_self_judge_steps(recipe, len(training))
    while step < num_steps:
        start = step * recipe.batch_answers
        count = min(recipe.batch_answers, len(training) * recipe.num_epochs - start)
        batch = [training[place] for place in endless_order(len(training), start=start, count=count, seed=order_seed)]
        parts = {"loss": rating_parts(model, batch, compute, recipe.micro_batch_tokens, coefficient=1 - share)}
        if share:
            parts["demonstration_loss"] = row_parts(
                model, next(imitated), compute, micro_batch_rows=recipe.micro_batch_rows, coefficient=share
            )
        done = differentiate(parts)
        for weighted in done.values():
            add_gradient(model, weighted.gradient)
        rate = cosine_rate(step, peak=recipe.learning_rate, num_steps=num_steps, warmup_steps=recipe.warmup_steps)
        grad_norm = optimizer.step(rate)
        step += 1
        losses = {name: done[name].loss / weight for name, weight in weights.items() if name in done}
        stage.run.record(step, **losses, grad_norm=grad_norm, rate=rate)
        if step % recipe.evaluate_steps == 0 and step < num_steps:
            stage.run.record(step, **_validate(model, tokenizer, held_out, compute))
        checkpoints.after_step(step, {"demonstrations": imitated.cursor.to_state()})

    metrics = _validate(model, tokenizer, held_out, compute)
    stage.run.record(step, **metrics)
    save_model(model, stage.folder, tokenizer)
    num_left_out = len(answers) - len(training) - len(held_out)
    return {
        **metrics,
        "num_answers": len(training),
        "num_validation_answers": len(held_out),
        "num_left_out": num_left_out,
    }


def rating_parts(
    model: LanguageModel,
    batch: Sequence[JudgedAnswer],
    compute: Compute,
    max_tokens: int,
    *,
    coefficient: float,
) -> list[LossPart]:
    """Return the parts of coefficient · (mean over the batch's ratings of -log p(rating | context, answer, attribute)).

    The distribution is over the whole vocabulary, as when the model writes.
    """
    batch = sorted(batch, key=lambda element: element.tree.num_tokens)  # like lengths together leave little padding
    weight = coefficient / sum(len(element.holds) for element in batch)

    def part_of(group: Sequence[int]) -> LossPart:
        def loss() -> Tensor:
            with autocast(compute):
                hidden_ND, rating_N = _before_ratings(model, [batch[index].tree for index in group])
                weight_N = torch.full_like(rating_N, weight, dtype=torch.float32)
                return chunked_next_token_loss(hidden_ND, model.head_weight, rating_N, weight_N)

        return LossPart(model, loss)

    groups = group_by_tokens([element.tree.num_tokens for element in batch], max_tokens=max_tokens)
    return [part_of(group) for group in groups]


def probabilities(
    model: LanguageModel, tokenizer: Tokenizer, trees: Sequence[Tree], compute: Compute, *, max_tokens: int = 4096
) -> list[list[float]]:
    """Return, for each tree, P(yes) of each of its attributes: the probability among yes and no.

    Args:
        model: knows the ratings.
        tokenizer: its.
        trees: context and answer, then two tokens for each attribute; the second, a rating, is not read.
        compute: precision of the matrix products.
        max_tokens: computed at once.
    """
    ids = tokenizer.rating

    @torch.no_grad()
    def judge(group: Sequence[int]) -> list[float]:
        with autocast(compute):
            hidden_ND, _ = _before_ratings(model, [trees[index] for index in group])
            logits_NV = model.logits(hidden_ND)
        found: list[float] = torch.sigmoid((logits_NV[:, ids.yes] - logits_NV[:, ids.no]).float()).tolist()
        return found

    groups = group_by_tokens([tree.num_tokens for tree in trees], max_tokens=max_tokens)
    flat = iter([probability for found in map_parts(judge, groups) for probability in found])
    return [[next(flat) for _ in tree.answers] for tree in trees]


def _before_ratings(model: LanguageModel, trees: Sequence[Tree]) -> tuple[Tensor, Tensor]:
    """Return hidden_ND at each attribute, which predicts its rating, and rating_N."""
    packed = pack_trees(trees, context=model.config.max_positions, device=model.head_weight.device)
    hidden_BTD = model.trunk(
        packed.tokens_BT,
        positions_BT=packed.positions_BT,
        segments_BT=packed.segments_BT,
        branches_BT=packed.branches_BT,
    )
    hidden_ND = hidden_BTD.flatten(0, 1).index_select(0, packed.last_N - 1)
    return hidden_ND, packed.tokens_BT.flatten()[packed.last_N]


def _split(
    answers: Mapping[str, Sequence[JudgedAnswer]], share: float, *, seed: int
) -> tuple[list[JudgedAnswer], list[JudgedAnswer]]:
    """Return (training, held out), whole prompts; where one falls depends on its text and the seed alone.

    Raises:
        DataError: nothing is left to train on.
    """
    training: list[JudgedAnswer] = []
    held_out: list[JudgedAnswer] = []
    for prompt in sorted(answers):
        side = held_out if derive_seed(seed, "self judge", "held out", prompt) / 2**63 < share else training
        side += answers[prompt]
    if not training:
        raise DataError(f"all {len(answers)} rated prompts fell into self_judge.validation_share {share}; rate more")
    return training, held_out


def _validate(
    model: LanguageModel, tokenizer: Tokenizer, held_out: Sequence[JudgedAnswer], compute: Compute
) -> dict[str, float]:
    """Return accuracy, AUC and share of yes of each attribute; what cannot be measured is left out."""
    found = probabilities(model, tokenizer, [element.tree for element in held_out], compute)
    judged: dict[str, list[tuple[float, bool]]] = {attribute: [] for attribute in ATTRIBUTES}
    for element, probability in zip(held_out, found, strict=True):
        for attribute, yes, holds in zip(element.attributes, probability, element.holds, strict=True):
            judged[attribute].append((yes, holds))
    metrics = {}
    for attribute, pairs in judged.items():
        if not pairs:
            continue
        yes_N, holds_N = torch.tensor([yes for yes, _ in pairs]), torch.tensor([holds for _, holds in pairs])
        metrics[f"{attribute}_accuracy"] = ((yes_N >= 0.5) == holds_N).float().mean().item()
        metrics[f"{attribute}_share"] = holds_N.float().mean().item()
        if holds_N.any() and not holds_N.all():  # how often one that holds is rated above one that does not
            above_NN = (holds_N[:, None] & ~holds_N[None, :]).float()
            metrics[f"{attribute}_auc"] = pair_accuracy(yes_N[None], above_NN[None]).item()
    return metrics
