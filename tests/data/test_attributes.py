"""The attributes by hand, and against the labeling form's own names."""

from __future__ import annotations

import pytest

from sanbai.data.attributes import ATTRIBUTES, HARM, attributes_of, rated_answers
from sanbai.data.rankings import Ranking, Rating
from sanbai.feedback.label_form import FLAG_NAMES


def ranking(labeler: str, ratings: tuple[Rating, ...], *, prompt: str = "Who?") -> Ranking:
    messages = ({"role": "user", "content": prompt},)
    return Ranking(labeler, messages, ("Anna.", "Nobody."), ((0,), (1,)), labeler, ratings)


@pytest.mark.parametrize(
    ("rating", "holds"),
    [
        (Rating(7, ("satisfies_constraint",)), "sensible specific interesting safe grounded"),
        (Rating(5), "sensible specific safe grounded"),
        (Rating(3, ("fails_task",)), "sensible safe grounded"),  # "I do not know"
        (Rating(1, ("fails_task",)), "safe grounded"),  # babble
        (Rating(7, ("hallucination",)), "safe"),
        (Rating(6, ("opinion", "moral_judgment")), "sensible specific interesting safe grounded"),
        *((Rating(2, (flag,)), "sensible specific grounded") for flag in sorted(HARM)),
    ],
)
def test_grade_and_flags_say_what_holds(rating: Rating, holds: str) -> None:
    found = attributes_of(rating)
    assert [attribute for attribute in ATTRIBUTES if found[attribute]] == holds.split()


def test_the_flags_are_those_of_the_labeling_form() -> None:
    assert HARM | {"fails_task", "hallucination"} <= FLAG_NAMES


def test_more_than_half_of_the_raters_decide_and_the_ladder_ends_where_it_breaks() -> None:
    good, vague, bad = Rating(7), Rating(4, ("fails_task",)), Rating(1, ("violent",))
    rankings = [
        ranking("a", (good, bad)),
        ranking("b", (good, bad)),
        ranking("c", (vague, good)),
        ranking("d", (bad, vague)),
        ranking("e", ()),
    ]
    first, second = rated_answers(rankings)
    assert (first.response, second.response) == ("Anna.", "Nobody.")
    # 3 of 4 sensible; 2 of 4 specific is no majority, so that nobody is asked whether it interests.
    assert first.attributes == {"sensible": True, "specific": False, "safe": True, "grounded": True}
    assert second.attributes == {"sensible": False, "safe": False, "grounded": True}


def test_the_same_answer_to_another_prompt_is_another_answer() -> None:
    rankings = [ranking("a", (Rating(7), Rating(1))), ranking("a", (Rating(1), Rating(7)), prompt="Where?")]
    answers = rated_answers(rankings)
    assert [answer.attributes["sensible"] for answer in answers] == [True, False, False, True]
