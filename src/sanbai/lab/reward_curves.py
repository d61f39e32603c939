"""What a ranking of K answers is worth, and why its pairs belong into one batch element (Ouyang et al. 2022, 3.5).

First, K = 2, 4 and 9 answers a prompt, ranked by one labeler each: at equal prompts, where a larger K brings
C(K, 2) pairs for one reading of a prompt; and at equal pairs (before ties), where a larger K means fewer prompts, and
which therefore must not gain.

Second, the 36 pairs of nine answers as one element against the same pairs shuffled into one set ("a single pass over
the dataset caused the reward model to overfit"), two epochs of either, as many steps and as many pairs a step.
Over-fit is the loss on held-out prompts at an epoch's end less the training loss over its last quarter.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import fmean

import numpy as np

from sanbai.evaluation.reliability import is_right
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.seeds import python_random, torch_generator
from sanbai.lab.bench import Bench
from sanbai.lab.preferences import (
    MOST_ANSWERS,
    SIZE,
    heldout_pairs,
    margins_of,
    panel,
    questions,
    ranked_by_one,
    reward_recipe,
    started,
    taught,
)
from sanbai.lab.trials import Phenomenon
from sanbai.model.heads import ScalarModel
from sanbai.model.hugging_face import load_language_model
from sanbai.training.optimizer import Optimizer
from sanbai.training.ranked_prompts import RankedPrompt, collect_ranked_prompts
from sanbai.training.reward import rank_batch, validate
from sanbai.training.schedule import cosine_rate
from sanbai.training.trees import Tree

SIZES = (2, 4, 9)
EPOCHS = 2
PROMPTS_A_STEP = 8
EVALUATIONS = 4
"""Of the held-out loss, an epoch."""


def prompts_of_equal_pairs(num_answers: int, num_prompts: int) -> int:
    """Return the prompts whose C(K, 2) pairs are as many as those of `num_prompts` prompts with two answers."""
    return max(1, num_prompts // comb(num_answers, 2))


def as_pairs(elements: Sequence[RankedPrompt]) -> list[RankedPrompt]:
    """Return every strict preference as an element of its own: two answers, read again for each pair they are in."""
    preference_22 = np.array([[0, 1], [0, 0]], dtype=np.float32)
    return [
        RankedPrompt(
            f"{one.key} {better} {worse}",
            Tree(one.tree.prompt, (one.tree.answers[better], one.tree.answers[worse])),
            preference_22,
            np.zeros((2, 2), dtype=np.float32),
        )
        for one in elements
        for better, worse in np.argwhere(one.preference_KK > 0).tolist()
    ]


def overfitting(
    bench: Bench, base: Artifact, elements: Sequence[RankedPrompt], heldout: Sequence[RankedPrompt], *, steps: int
) -> tuple[list[float], list[float]]:
    """Train for `EPOCHS` times `steps` steps and return each epoch's last held-out loss, and it less the training loss.

    Args:
        bench: seed, precision.
        base: whose trunk is copied.
        elements: shuffled anew for each epoch, and cut into `steps` batches.
        heldout: not trained on.
        steps: of an epoch.
    """
    recipe = reward_recipe()
    model = ScalarModel.from_language_model(load_language_model(base.path), torch_generator(bench.seed, "lab", "head"))
    optimizer = Optimizer(model, recipe.optimizer)
    every = max(1, steps // EVALUATIONS)
    lasts, gaps = [], []
    for epoch in range(EPOCHS):
        order = list(elements)
        python_random(bench.seed, "lab", "epoch", epoch).shuffle(order)
        cuts = np.linspace(0, len(order), steps + 1).astype(int).tolist()
        losses, held_losses = [], []
        for step in range(steps):
            batch = order[cuts[step] : cuts[step + 1]]
            loss, _ = rank_batch(model, batch, bench.compute, max_tokens=recipe.micro_batch_tokens, learn=True)
            losses.append(loss)
            rate = cosine_rate(
                epoch * steps + step, peak=recipe.learning_rate, num_steps=EPOCHS * steps, warmup_steps=3
            )
            optimizer.step(rate)
            if (step + 1) % every == 0 or step + 1 == steps:
                held_losses.append(
                    validate(model, heldout, bench.compute, recipe.micro_batch_tokens)["validation_loss"]
                )
        lasts.append(held_losses[-1])
        gaps.append(held_losses[-1] - fmean(losses[-every:]))
    return lasts, gaps


def measure(bench: Bench) -> dict[str, float]:
    """Train all reward models and return the figures."""
    bench, base = started(bench)
    crowd = panel(bench)
    pairs = heldout_pairs(bench, crowd)
    most = bench.size.num_demonstrations
    asked = questions(bench, "train", most, num_answers=MOST_ANSWERS)
    equal_prompts = prompts_of_equal_pairs(4, most)

    def accuracy(name: str, num_answers: int, num_prompts: int) -> float:
        rankings = ranked_by_one(bench, asked[:num_prompts], crowd, num_answers)
        model = taught(bench, name, base, rankings, reward_recipe(batch_prompts=PROMPTS_A_STEP, num_epochs=EPOCHS))
        return float(is_right(margins_of(bench, model, pairs)).mean())

    figures = {}
    for number in SIZES:
        figures[f"K = {number}, equal prompts"] = accuracy(f"reward {number}", number, equal_prompts)
        figures[f"K = {number}, equal pairs"] = accuracy(
            f"reward {number}", number, prompts_of_equal_pairs(number, most)
        )

    limits = {"max_prompt_tokens": 128, "max_response_tokens": 96}
    rankings = ranked_by_one(bench, asked[:equal_prompts], crowd, MOST_ANSWERS)
    half = equal_prompts // 2
    elements = collect_ranked_prompts(bench.tokenizer, rankings[:half], **limits)
    heldout = collect_ranked_prompts(bench.tokenizer, rankings[half:equal_prompts], **limits)
    steps = max(1, len(elements) // PROMPTS_A_STEP)
    for name, given in (("a prompt one element", elements), ("pairs shuffled", as_pairs(elements))):
        lasts, gaps = overfitting(bench, base, given, heldout, steps=steps)
        for epoch in range(EPOCHS):
            figures[f"held-out loss, epoch {epoch + 1}, {name}"] = lasts[epoch]
            figures[f"over-fit, epoch {epoch + 1}, {name}"] = gaps[epoch]
    return figures


_LOSSES = {
    name: tuple(f"{figure}, epoch {epoch + 1}, {name}" for figure in ("held-out loss", "over-fit") for epoch in (0, 1))
    for name in ("a prompt one element", "pairs shuffled")
}
REWARD_CURVES = Phenomenon(
    name="reward_curves",
    claim="Rankings of more answers teach more a prompt, and overfit less as one element (InstructGPT, 2203.02155).",
    measure=measure,
    effect=("K = 9, equal prompts", "K = 4, equal prompts", *_LOSSES["a prompt one element"]),
    control=(
        "K = 2, equal prompts",
        *(f"K = {number}, equal pairs" for number in SIZES),
        *_LOSSES["pairs shuffled"],
    ),
    units=dict.fromkeys((name for names in _LOSSES.values() for name in names), "nats a pair"),
    size=SIZE,
)
