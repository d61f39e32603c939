from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from sanbai.data.gibberish import surprises
from sanbai.data.recipe import DataRecipe

SENTENCES = [
    f"{name} {verb} {thing} near the {place}."
    for name in ("Anna", "Bert", "Clara", "David")
    for verb in ("bakes", "sells", "finds", "paints")
    for thing in ("bread", "apples", "a boat")
    for place in ("mill", "bridge", "market")
]


def plain_surprise(text: str, others: list[str]) -> float:
    """The docstring's formula over plain counters of the other texts."""
    pairs: Counter[tuple[str, str]] = Counter()
    singles: Counter[str] = Counter()
    for other in others:
        lowered = "\n" + other.lower()
        pairs.update(pairwise(lowered))
        singles.update(lowered[1:])
    lowered = "\n" + text.lower()
    bits = 0.0
    for first, second in pairwise(lowered):
        single = (singles[second] + 1) / (singles.total() + 2**16)
        before = max(singles[first], pairs[first, second])
        bits -= math.log2((pairs[first, second] + 5 * single) / (before + 5))
    return bits / len(text)


def test_the_measure_is_the_formula_with_the_texts_own_pairs_left_out() -> None:
    texts = [*SENTENCES[:20], "村里有磨坊", "xqzj wkvp"]
    expected = [plain_surprise(text, texts[:index] + texts[index + 1 :]) for index, text in enumerate(texts)]
    assert surprises(texts).tolist() == pytest.approx(expected, rel=1e-9)


def test_random_letters_stand_apart_from_sentences_and_sums() -> None:
    chance = random.Random(0)
    gibberish = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=60)) for _ in range(10)]
    sums = [f"{a} + {b} = {a + b}" for a in range(5, 20) for b in (3, 14)]
    bits = surprises([*SENTENCES, *sums, *gibberish])
    recipe = DataRecipe()
    assert bits[-10:].min() > max(recipe.gibberish_bits, recipe.gibberish_ratio * np.median(bits))
    assert bits[:-10].max() < recipe.gibberish_bits


def test_an_empty_text_surprises_nobody() -> None:
    assert surprises(["", "abc"])[0] == 0.0
