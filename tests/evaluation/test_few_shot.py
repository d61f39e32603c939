from __future__ import annotations

import math
import random

import pytest
from tests.evaluation.conftest import tiny_model
from tests.evaluation.slow import slow_logprobs

from sanbai.evaluation.few_shot import ChoiceItem, ChoiceTask, encode_choice, score_choices
from sanbai.foundation.errors import DataError
from sanbai.foundation.seeds import python_random
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer


def item(number: int) -> ChoiceItem:
    rng = random.Random(number)
    choices = [" 5", " 50", " the cow", " milk and apples"]
    return ChoiceItem(
        id=f"item-{number}", question=f"Question: {rng.randrange(90)}? Answer:", choices=choices, answer=number % 4
    )


def task(num_items: int = 6) -> ChoiceTask:
    return ChoiceTask(name="numbers", items=[item(n) for n in range(num_items)], pool=[item(n) for n in range(50, 58)])


@pytest.mark.parametrize("shots", [0, 2])
def test_choices_equal_a_loop_over_single_tokens(tokenizer: Tokenizer, shots: int) -> None:
    model = tiny_model(tokenizer.vocab_size, max_positions=128)
    scores = score_choices(model, tokenizer, [task()], context=128, seed=3, shots=[shots], num_draws=1)
    for asked in task().items:
        taken = python_random(3, "shots", "numbers", asked.id, shots, 0).sample(task().pool, shots)
        text = "".join(f"{shot.question}{shot.choices[shot.answer]}\n\n" for shot in taken) + asked.question
        begin = [tokenizer.reserved.end_of_text, *tokenizer.encode(text)]
        per_byte = []
        for choice in asked.choices:
            row = [tokenizer.reserved.end_of_text, *tokenizer.encode(text + choice)]
            assert row[: len(begin)] == begin
            per_byte.append(math.fsum(slow_logprobs(model, row)[len(begin) - 1 :]) / len(choice.encode()))
        expected = float(per_byte.index(max(per_byte)) == asked.answer)
        assert scores.right[shots][f"numbers/{asked.id}"] == expected
    assert scores.accuracy[shots].mean == pytest.approx(sum(scores.right[shots].values()) / 6)
    assert scores.chance == 0.25
    assert scores.dropped_shots == 0


def spelled(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of tokens from the middle of a text, its own first space kept."""
    return b"".join(map(tokenizer.token_bytes, ids)).decode()


def test_an_answer_that_begins_another_keeps_a_span_of_its_own(tokenizer: Tokenizer) -> None:
    for choice in (" 5", " 50"):
        ids, start = encode_choice(tokenizer, "Answer:", choice)
        assert spelled(tokenizer, ids[start:]) == choice


def test_trailing_spaces_of_the_context_belong_to_the_continuation(tokenizer: Tokenizer) -> None:
    ids, start = encode_choice(tokenizer, "Answer: ", "cow")
    assert tokenizer.decode(ids) == "Answer: cow"
    assert spelled(tokenizer, ids[start:]) == " cow"


def test_a_merge_across_the_border_is_scored_from_the_first_differing_token(tokenizer: Tokenizer) -> None:
    ids, start = encode_choice(tokenizer, "the mil", "ler")
    assert tokenizer.decode(ids) == "the miller"
    assert start < len(ids)
    assert ids[:start] == tokenizer.encode("the mil")[:start]


def test_shots_that_do_not_fit_are_dropped_and_counted(model: LanguageModel, tokenizer: Tokenizer) -> None:
    longest = max(len(encode_choice(tokenizer, i.question, c)[0]) for i in task().items for c in i.choices)
    scores = score_choices(model, tokenizer, [task()], context=longest + 1, seed=0, shots=[1], num_draws=2)
    assert scores.dropped_shots == 12
    with pytest.raises(DataError, match="longer than"):
        score_choices(model, tokenizer, [task()], context=5, seed=0, shots=[0])


def test_a_pool_that_holds_a_question_is_refused(model: LanguageModel, tokenizer: Tokenizer) -> None:
    leaky = ChoiceTask(name="leaky", items=[item(1)], pool=[item(1), item(2)])
    with pytest.raises(DataError, match="item-1 is both asked and shown"):
        score_choices(model, tokenizer, [leaky], context=64, seed=0, shots=[1])
    small = ChoiceTask(name="small", items=[item(1)], pool=[item(2)])
    with pytest.raises(DataError, match="cannot give 4 shots"):
        score_choices(model, tokenizer, [small], context=64, seed=0)
