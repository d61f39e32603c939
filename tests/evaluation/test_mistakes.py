"""The surest mistakes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sanbai.evaluation.mistakes import confident_mistakes
from sanbai.evaluation.reward_accuracy import StrictPair


def pair(prompt: str, chosen: str, rejected: str) -> StrictPair:
    return StrictPair(prompt, "chat", [{"role": "user", "content": prompt}], chosen, rejected)


def test_the_surest_come_first_one_a_prompt_and_a_minority_s_word_is_no_mistake() -> None:
    pairs = [
        pair("p", "a", "b"),
        pair("p", "c", "d"),
        pair("q", "e", "f"),
        pair("q", "e", "f"),
        pair("q", "f", "e"),
        pair("r", "g", "h"),
        pair("r", "h", "g"),
        pair("s", "i", "j"),
    ]
    margin_N = np.array([-1.0, -3.0, -2.0, -2.0, 2.0, -9.0, 9.0, 4.0])
    found = confident_mistakes(pairs, margin_N)
    assert [(each["chosen"], each["num_agreeing"], each["num_labelers"]) for each in found] == [
        ("c", 1, 1),
        ("e", 2, 3),
    ]
    assert found[0]["probability"] == pytest.approx(0.952574126822433)  # the logistic function at 3
    assert found[0]["messages"] == [{"role": "user", "content": "p"}]
    assert [each["chosen"] for each in confident_mistakes(pairs, margin_N, num=1)] == ["c"]
    assert confident_mistakes(pairs, np.abs(margin_N)) == []
