from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from sanbai.world.demonstrations import answers
from sanbai.world.labelers import (
    FLAGS,
    Comparison,
    SimulatedLabeler,
    agreement,
    best_possible_accuracy,
    comparisons_of,
    judged,
    labelers,
    preference_probability,
    ranking_row,
)
from sanbai.world.prompts import Prompt, Split, prompts
from sanbai.world.recipe import WorldRecipe
from sanbai.world.village import make_village


def candidate_comparisons(seed: int, *, num_prompts: int, num_comparisons: int) -> list[Comparison]:
    """Pairs of different answers as an imperfect supervised policy writes them, K = 4..9."""
    generator = random.Random(seed)
    made = prompts(make_village(seed), seed, split="train", num=num_prompts)
    found = [
        pair for prompt in made for pair in comparisons_of(prompt, answers(prompt, generator, generator.randint(4, 9)))
    ]
    return generator.sample(found, num_comparisons)


@pytest.fixture(scope="module")
def comparisons() -> list[Comparison]:
    return candidate_comparisons(1, num_prompts=100, num_comparisons=120)


def test_labelers_are_forty_different_people_reproducibly() -> None:
    drawn = labelers(1)
    assert len(drawn) == 40
    assert drawn == labelers(1)
    assert drawn != labelers(2)
    assert len({labeler.name for labeler in drawn}) == 40
    for labeler in drawn:
        assert labeler.helpful + labeler.honest + labeler.harmless == pytest.approx(1.0)
        assert labeler.helpful > max(labeler.honest, labeler.harmless)


def test_equal_texts_tie_and_order_and_company_change_nothing(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    labeler = labelers(1)[3]
    generator = random.Random(0)
    for prompt in prompts_by_split["train"][:50]:
        responses = answers(prompt, generator, 6)
        responses.append(responses[0])
        label = labeler.label(prompt, responses)
        place = {answer: number for number, bucket in enumerate(label["buckets"]) for answer in bucket}
        assert sorted(place) == list(range(7))
        assert place[0] == place[6]
        backwards = labeler.label(prompt, responses[::-1])["buckets"]
        assert [sorted(6 - answer for answer in bucket) for bucket in backwards] == [
            sorted(b) for b in label["buckets"]
        ]
        pair = labeler.label(prompt, [responses[1], responses[2]])["buckets"]
        expected = [[0, 1]] if place[1] == place[2] else [[0], [1]] if place[1] < place[2] else [[1], [0]]
        assert pair == expected


def test_ratings_and_flags_fit_the_form(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    labeler = replace(labelers(1)[0], noise=1e-6)
    for prompt in prompts_by_split["train"][:200]:
        responses = [prompt.truth.good[0], ""]
        ratings = labeler.label(prompt, responses)["ratings"]
        assert ratings[0]["likert"] == 7
        assert ratings[1]["likert"] <= 4
        assert "fails_task" in ratings[1]["flags"]
        assert ratings[0]["flags"] == ["satisfies_constraint"]
        assert {*ratings[1]["flags"]} <= {*FLAGS}
    harmful = next(prompt for prompt in prompts_by_split["train"] if prompt.truth.rule == "refuse")
    obeying = labeler.label(harmful, harmful.truth.faulty["obeying"])["ratings"][0]
    assert {"encourages_harm", "harmful_advice", "fails_task"} <= {*obeying["flags"]}


def test_preference_probabilities_agree_with_monte_carlo(comparisons: list[Comparison]) -> None:
    generator = np.random.default_rng(0)
    draws = 40_000
    for labeler, (prompt, first, second) in zip(labelers(1), comparisons, strict=False):
        exact = preference_probability(labeler, prompt, first, second)
        assert math.fsum(exact) == pytest.approx(1.0, abs=1e-9)
        utilities = [labeler.utility(judged(prompt, text)) for text in (first, second)]
        grades = np.floor((np.array(utilities) + labeler.noise * generator.standard_normal((draws, 2))) / labeler.step)
        drawn = [
            np.mean(grades[:, 0] > grades[:, 1]),
            np.mean(grades[:, 0] == grades[:, 1]),
            np.mean(grades[:, 0] < grades[:, 1]),
        ]
        for probability, share in zip(exact, drawn, strict=True):
            assert abs(probability - share) <= 4 * math.sqrt(max(probability * (1 - probability), 1e-6) / draws)


def test_the_noise_of_texts_is_standard_normal(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    """Grades of 4,000 texts of one utility on a fine grid have the labeler's mean and deviation."""
    prompt = prompts_by_split["train"][0]
    labeler = replace(labelers(1)[0], noise=1.0, step=0.01, length=0.0)
    texts = [f"qqq{number}." for number in range(4000)]
    values = np.array([labeler.grade(prompt, text) for text in texts]) * 0.01 + 0.005
    mean = labeler.utility(judged(prompt, texts[0]))
    assert abs(values.mean() - mean) < 4 / math.sqrt(4000)
    assert abs(values.std() - 1.0) < 4 / math.sqrt(2 * 4000)


def test_identical_answers_tie_with_certainty(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    prompt = prompts_by_split["train"][0]
    assert preference_probability(labelers(1)[0], prompt, "Same.", "Same.") == (0.0, 1.0, 0.0)
    assert comparisons_of(prompt, ["Same.", "Same."]) == []


def drawn_orders(population: tuple[SimulatedLabeler, ...], comparison: Comparison) -> list[int]:
    """Each labeler's order of a pair, from labels as records hold them: 1, 0 for a tie, -1."""
    prompt, first, second = comparison
    buckets = [labeler.label(prompt, [first, second])["buckets"] for labeler in population]
    return [0 if len(bucket) == 1 else 1 if bucket[0] == [0] else -1 for bucket in buckets]


def test_agreement_and_best_accuracy_agree_with_the_labels_themselves(comparisons: list[Comparison]) -> None:
    population = labelers(1)
    orders = [drawn_orders(population, comparison) for comparison in comparisons]
    alike = both = strict = best = 0.0
    for pair in orders:
        wins, losses = pair.count(1), pair.count(-1)
        alike += wins * (wins - 1) + losses * (losses - 1)
        both += (wins + losses) * (wins + losses - 1)
    for comparison, pair in zip(comparisons, orders, strict=True):
        likely = [preference_probability(labeler, *comparison) for labeler in population]
        choice = 1 if sum(p[0] for p in likely) >= sum(p[2] for p in likely) else -1
        best += pair.count(choice)
        strict += pair.count(1) + pair.count(-1)
    assert agreement(population, comparisons) == pytest.approx(alike / both, abs=0.02)
    assert best_possible_accuracy(population, comparisons) == pytest.approx(best / strict, abs=0.02)


def test_no_fixed_judge_beats_the_best_possible_one(comparisons: list[Comparison]) -> None:
    population = labelers(1, 6)
    best = best_possible_accuracy(population, comparisons[:10])
    table = [[preference_probability(labeler, *c) for labeler in population] for c in comparisons[:10]]
    strict = sum(p[0] + p[2] for row in table for p in row)
    accuracies = [
        sum(p[0] if choices >> place & 1 else p[2] for place, row in enumerate(table) for p in row) / strict
        for choices in range(2**10)
    ]
    assert best == pytest.approx(max(accuracies))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_labelers_agree_as_often_as_instructgpts(seed: int) -> None:
    pairs = candidate_comparisons(seed, num_prompts=1600, num_comparisons=4000)
    population = labelers(seed, 16)
    assert agreement(population, pairs) == pytest.approx(0.726, abs=0.015)
    assert 0.74 < best_possible_accuracy(population, pairs) < 0.85


def test_labelers_follow_gold_and_like_length(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    population = labelers(1, 12)
    prompt = next(prompt for prompt in prompts_by_split["train"] if prompt.task == "passage_fact")
    good, wrong = prompt.truth.good[0], prompt.truth.faulty["wrong"][0]
    assert fmean(preference_probability(labeler, prompt, good, wrong)[0] for labeler in population) > 0.85
    assert fmean(labeler.length for labeler in labelers(1)) == pytest.approx(WorldRecipe().length_liking, rel=0.35)
    assert min(labeler.length for labeler in labelers(1)) >= 0.0


def test_a_ranking_row_is_a_ranking_record(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    prompt = prompts_by_split["train"][0]
    row = ranking_row(prompt, ["One.", "Two."], labelers(1)[0], round_number=2)
    assert {*row} == {"id", "messages", "responses", "buckets", "labeler", "ratings", "kind", "round"}
    assert row["round"] == 2
