"""A reward model knows labelers whom it never saw nearly as well as its own (Ouyang et al. 2022, appendix E.2).

As in the paper, the labelers are divided into five groups; five models are trained, each on the rankings of four
groups, and measured on held-out prompts: by rankings of the labelers it learned from and by those of the fifth group
(the paper: 72.4 ± 0.4 % and 69.6 ± 0.9 %, its E.2 names them the other way round). Control: the same training with
rankings whose buckets are given round, which must leave one half.

The five models on one set of pairs are also an ensemble: does a pair on which they disagree more often go wrong?
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import numpy as np

from sanbai.data.rankings import Ranking
from sanbai.evaluation.disagreement import disagreement
from sanbai.evaluation.reliability import is_right
from sanbai.foundation.seeds import python_random
from sanbai.lab.bench import Bench
from sanbai.lab.preferences import (
    HELDOUT_ANSWERS,
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

NUM_GROUPS = 5


def orders_given_round(rankings: list[Ranking], seed: int) -> list[Ranking]:
    """Return the rankings with each other's orders; answers keep their places."""
    buckets = [one.buckets for one in rankings]
    python_random(seed, "buckets").shuffle(buckets)
    return [replace(one, buckets=given) for one, given in zip(rankings, buckets, strict=True)]


def measure(bench: Bench) -> dict[str, float]:
    """Train five models and the control, and return their accuracies."""
    bench, base = started(bench)
    crowd = panel(bench)
    groups = [crowd[number::NUM_GROUPS] for number in range(NUM_GROUPS)]
    asked = questions(bench, "train", bench.size.num_demonstrations // 4, num_answers=HELDOUT_ANSWERS)
    recipe = reward_recipe(num_epochs=2)
    everyone = heldout_pairs(bench, crowd)
    own, others, ensemble = [], [], []
    for number, held_out in enumerate(groups):
        teachers = [one for group in groups if group is not held_out for one in group]
        rankings = ranked_by_one(bench, asked, teachers, HELDOUT_ANSWERS)
        model = taught(bench, f"reward fold {number + 1}", base, rankings, recipe)
        own.append(float(is_right(margins_of(bench, model, heldout_pairs(bench, teachers))).mean()))
        others.append(float(is_right(margins_of(bench, model, heldout_pairs(bench, held_out))).mean()))
        ensemble.append(margins_of(bench, model, everyone))
    given_round = orders_given_round(ranked_by_one(bench, asked, crowd, HELDOUT_ANSWERS), bench.seed)
    control = margins_of(bench, taught(bench, "reward given round", base, given_round, recipe), everyone)
    found = disagreement(np.stack(ensemble), [pair.prompt for pair in everyone], seed=bench.seed, draws=2)
    return {
        "in-group labelers": fmean(own),
        "held-out labelers": fmean(others),
        "all labelers, mean of the five": found.accuracy.mean,
        "wrong pair has the larger spread": found.error_by_spread.mean if found.error_by_spread else 0.5,
        "wrong pair has the smaller margin": found.error_by_margin.mean if found.error_by_margin else 0.5,
        "rankings given round": float(is_right(control).mean()),
    }


LABELER_FOLDS = Phenomenon(
    name="labeler_folds",
    claim="A reward model predicts labelers it never saw nearly as well as its own (InstructGPT, arXiv:2203.02155).",
    measure=measure,
    effect=(
        "in-group labelers",
        "held-out labelers",
        "all labelers, mean of the five",
        "wrong pair has the larger spread",
        "wrong pair has the smaller margin",
    ),
    control=("rankings given round",),
    size=SIZE,
)
