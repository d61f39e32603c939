"""Fewer rankings for the same reward model, if one asks for those that teach most (`training/label_choice.py`).

A pool of prompts has nine answers each; a labeler ranks four of one prompt's, which is one label. After a first handful
at random, each batch is chosen by the reward model's own uncertainty: which prompts, and which four of their answers.
Control: the same labelers and numbers with prompts and answers at random. Beside both: prompts at random, their answers
chosen.

After each batch a model is trained from the start on all rankings so far and measured on held-out prompts. Labels
needed are those at which a rising fit of the accuracies reaches what the random choice had with all its labels; a
choice that never does counts all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sanbai.data.rankings import Ranking
from sanbai.evaluation.reliability import is_right
from sanbai.foundation.seeds import python_random
from sanbai.lab.bench import Bench
from sanbai.lab.preferences import (
    HELDOUT_ANSWERS,
    MOST_ANSWERS,
    SIZE,
    Question,
    heldout_pairs,
    margins_of,
    panel,
    questions,
    ranking,
    reward_recipe,
    started,
    taught,
)
from sanbai.lab.trials import Phenomenon
from sanbai.training.label_choice import Choice, choose_tasks
from sanbai.training.reward_model import RewardModel
from sanbai.training.reward_uncertainty import posterior_covariance, read_candidates

#: Labels at which models are trained, as shares of all; each batch is half as large again as what is there.
STEPS = (0.13, 0.2, 0.3, 0.45, 0.67, 1.0)
POOL = 1.5
"""Prompts in the pool for each label."""
Choose = Callable[[Bench, RewardModel, Sequence[Ranking], Sequence[Question], int], Sequence[Choice]]
"""Bench, model, its rankings, questions left in a random order, how many -> which, by their places among those left."""


def at_random(
    bench: Bench, model: RewardModel | None, rankings: Sequence[Ranking], left: Sequence[Question], num: int
) -> list[Choice]:
    """Take the next questions, and any of their answers."""
    del model, rankings

    def places(question: Question) -> tuple[int, ...]:
        draw = python_random(bench.seed, "lab", "shown", question.prompt.id)
        return tuple(sorted(draw.sample(range(MOST_ANSWERS), HELDOUT_ANSWERS)))

    return [Choice(place, places(one), 0.0) for place, one in enumerate(left[:num])]


def by_gain(
    bench: Bench, model: RewardModel, rankings: Sequence[Ranking], left: Sequence[Question], num: int
) -> list[Choice]:
    """Take the questions and answers that would teach most."""
    candidates = read_candidates(model, bench.tokenizer, [(one.prompt.messages, one.answers) for one in left])
    covariance_DD = posterior_covariance(model, bench.tokenizer, rankings)
    return choose_tasks(candidates, covariance_DD, num_tasks=num, num_answers=HELDOUT_ANSWERS)


def answers_by_gain(
    bench: Bench, model: RewardModel, rankings: Sequence[Ranking], left: Sequence[Question], num: int
) -> list[Choice]:
    """Take the next questions, and those of their answers that would teach most."""
    return by_gain(bench, model, rankings, left[:num], num)


def curve(bench: Bench, choose: Choose, pool: Sequence[Question], budgets: Sequence[int]) -> list[float]:
    """Return the held-out accuracy after so many labels, asked as a choice says."""
    bench, base = started(bench)
    crowd = panel(bench)
    pairs = heldout_pairs(bench, crowd)
    left, rankings, accuracies = list(pool), list[Ranking](), list[float]()
    model: RewardModel | None = None
    for budget in budgets:
        num = budget - len(rankings)
        chosen = at_random(bench, None, (), left, num) if model is None else choose(bench, model, rankings, left, num)
        for choice in chosen:
            question = left[choice.candidate]
            labeler = python_random(bench.seed, "lab", "who", question.prompt.id).choice(crowd)
            rankings.append(ranking(question, labeler, choice.answers))
        gone = {choice.candidate for choice in chosen}
        left = [one for place, one in enumerate(left) if place not in gone]
        # One name for every choice: the same rankings then make the same model, and the first ones are the same.
        model = taught(bench, "reward", base, rankings, reward_recipe(batch_prompts=8, num_epochs=2))
        accuracies.append(float(is_right(margins_of(bench, model, pairs)).mean()))
    return accuracies


def rising_fit(values: Sequence[float]) -> list[float]:
    """Return the nearest sequence, by squares, that never falls: neighbours that fall are pooled."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, size = float(value), 1
        while pools and pools[-1][0] >= mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    return [mean for mean, size in pools for _ in range(size)]


def labels_needed(budgets: Sequence[int], accuracies: Sequence[float], wanted: float) -> float:
    """Return at how many labels the rising fit reaches an accuracy, between two budgets in proportion.

    The last budget where it never does, the first where it had it from the beginning.
    """
    fit = rising_fit(accuracies)
    place = next((place for place, value in enumerate(fit) if value >= wanted), None)
    if place is None:
        return float(budgets[-1])
    if place == 0:
        return float(budgets[0])
    share = (wanted - fit[place - 1]) / (fit[place] - fit[place - 1])
    return budgets[place - 1] + share * (budgets[place] - budgets[place - 1])


def measure(bench: Bench) -> dict[str, float]:
    """Label in three ways and return accuracies and the labels that each needs."""
    most = bench.size.num_demonstrations // 4
    budgets = [max(2, round(share * most)) for share in STEPS]
    shared = replace(bench, text_seed=1)
    pool = questions(shared, "pool", round(POOL * most), num_answers=MOST_ANSWERS)
    ways: dict[str, Choose] = {"random": at_random, "chosen": by_gain, "answers chosen": answers_by_gain}
    curves = {name: curve(bench, choose, pool, budgets) for name, choose in ways.items()}
    wanted = rising_fit(curves["random"])[-1]
    return {
        **{
            f"labels needed, {name}": labels_needed(budgets, found, wanted) / budgets[-1]
            for name, found in curves.items()
        },
        **{
            f"accuracy at {budget} labels, {name}": accuracy
            for name, found in curves.items()
            for budget, accuracy in zip(budgets, found, strict=True)
        },
        **{f"accuracy with all labels, {name}": found[-1] for name, found in curves.items()},
    }


CHEAPER_LABELS = Phenomenon(
    name="cheaper_labels",
    claim="Asking about what the reward model is unsure of needs fewer rankings than asking at random.",
    measure=measure,
    effect=(
        "labels needed, chosen",
        "labels needed, answers chosen",
        "accuracy with all labels, chosen",
        "accuracy with all labels, answers chosen",
    ),
    control=("labels needed, random", "accuracy with all labels, random"),
    units=dict.fromkeys(
        (f"labels needed, {name}" for name in ("random", "chosen", "answers chosen")),
        "share of the random choice's labels",
    ),
    size=SIZE,
    num_seeds=5,
)
