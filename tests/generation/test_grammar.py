from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest

from sanbai.foundation.errors import DataError
from sanbai.generation.grammar import Grammar, GrammarTokenizer
from sanbai.generation.request import TokenMask
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

TEXTS = ['Anna bakes bread in the mill. 村里有一座磨坊。😀 {"name": "Anna", "age": 42, "likes": ["bread", "tea"]}\n']
SURPLUS = 3  # a model may have more ids than its tokenizer
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "likes": {"type": "array", "items": {"enum": ["bread", "tea"]}, "maxItems": 2},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 20, vocab_size=340)


@pytest.fixture(scope="module")
def parsed(tokenizer: Tokenizer) -> GrammarTokenizer:
    return GrammarTokenizer(tokenizer, vocab_size=tokenizer.vocab_size + SURPLUS, stop_ids=tokenizer.reserved.ends())


def allowed(mask: TokenMask, answer: Sequence[int]) -> list[int]:
    return [id_ for id_, may in enumerate(mask(answer).tolist()) if may]


def walk(mask: TokenMask, tokenizer: Tokenizer, generator: random.Random) -> str:
    """Draw allowed tokens evenly until an end, and return the text."""
    answer: list[int] = []
    while not answer or answer[-1] not in tokenizer.reserved.ends():
        answer.append(generator.choice(allowed(mask, answer)))
        assert len(answer) < 400
    return tokenizer.decode(answer)


def test_whatever_is_drawn_is_json_by_its_schema(tokenizer: Tokenizer, parsed: GrammarTokenizer) -> None:
    grammar, generator = Grammar.of_schema(SCHEMA, parsed), random.Random(1)
    for _ in range(40):
        found = json.loads(walk(grammar.mask(), tokenizer, generator))
        assert list(found) == ["name", "age", "likes"]
        assert len(found["name"]) <= 6
        assert 0 <= found["age"] <= 120
        assert len(found["likes"]) <= 2
        assert {*found["likes"]} <= {"bread", "tea"}


@pytest.mark.parametrize(
    "expression", ["[a-c]{2,4}(x|y)", "(Anna|bread)( in the mill)?", "村里(有|无)", "[0-9]{1,3} \\+ 1"]
)
def test_whatever_is_drawn_matches_the_expression(
    expression: str, tokenizer: Tokenizer, parsed: GrammarTokenizer
) -> None:
    grammar, generator = Grammar.of_regex(expression, parsed), random.Random(2)
    for _ in range(25):
        assert re.fullmatch(expression, walk(grammar.mask(), tokenizer, generator))


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("(Anna|bread)( in the mill)?", "Anna in the mill"),
        (".*", "Anna bakes bread in the mill. 村里有一座磨坊。😀"),
        ("[0-9]+ \\+ [0-9]+", "12 + 30"),
    ],
)
def test_what_matches_may_be_written_as_the_tokenizer_writes_it(
    expression: str, text: str, tokenizer: Tokenizer, parsed: GrammarTokenizer
) -> None:
    mask, ids = Grammar.of_regex(expression, parsed).mask(), tokenizer.encode(text)
    for place, id_ in enumerate(ids):
        assert id_ in allowed(mask, ids[:place]), (place, id_)
    assert tokenizer.reserved.end in allowed(mask, ids)


def test_answers_to_one_request_do_not_disturb_each_other(tokenizer: Tokenizer, parsed: GrammarTokenizer) -> None:
    grammar = Grammar.of_regex("(ab|ac|b+)c", parsed)
    answers = [tokenizer.encode(text) for text in ("abc", "acc", "bbc", "abc")]
    together = grammar.mask()
    for place in range(max(map(len, answers)) + 1):
        for answer in answers:
            if place <= len(answer):
                assert together(answer[:place]).tolist() == grammar.mask()(answer[:place]).tolist()


def test_surplus_ids_and_other_reserved_ones_are_never_allowed(tokenizer: Tokenizer, parsed: GrammarTokenizer) -> None:
    mask = Grammar.of_regex(".*", parsed).mask()
    never = {*range(tokenizer.vocab_size, tokenizer.vocab_size + SURPLUS)}
    never |= tokenizer.reserved_ids - tokenizer.reserved.ends()
    for answer in ([], tokenizer.encode("Anna")):
        assert not never & {*allowed(mask, answer)}


def test_a_token_outside_the_grammar_is_an_error(tokenizer: Tokenizer, parsed: GrammarTokenizer) -> None:
    mask = Grammar.of_regex("ab", parsed).mask()
    with pytest.raises(DataError, match="left its grammar"):
        mask(tokenizer.encode("Anna bakes"))


@pytest.mark.parametrize("expression", ["(((", "[", "a" * 70_000])
def test_a_malformed_or_huge_expression_is_refused_without_being_quoted(
    expression: str, parsed: GrammarTokenizer
) -> None:
    with pytest.raises(DataError) as raised:
        Grammar.of_regex(expression, parsed)
    assert expression not in str(raised.value) or expression == "["


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "wizard"},
        {"$ref": "#/nowhere"},
        {"type": "string", "pattern": "((("},
        {"enum": ["x" * 20 + str(number) for number in range(5000)]},
        {"type": "string", "minLength": 5, "maxLength": 2},
        {"type": "integer", "minimum": 5, "maximum": 2},
        {"enum": []},
        {"not": {}},
    ],
)
def test_a_malformed_huge_or_impossible_schema_is_refused(schema: dict[str, Any], parsed: GrammarTokenizer) -> None:
    with pytest.raises(DataError):
        Grammar.of_schema(schema, parsed)


def test_only_the_end_may_follow_nothing_where_nothing_is_all_that_matches(
    tokenizer: Tokenizer, parsed: GrammarTokenizer
) -> None:
    first = allowed(Grammar.of_regex("", parsed).mask(), [])
    assert tokenizer.reserved.end in first
    assert not [id_ for id_ in first if tokenizer.decode([id_])]
