from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch
from tests.generation.test_grammar import TEXTS, allowed, walk

from sanbai.foundation.errors import DataError
from sanbai.generation.grammar import Grammar, GrammarTokenizer
from sanbai.generation.tool_calls import CallRules, forbid
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

WEATHER = {
    "type": "object",
    "properties": {"place": {"enum": ["mill", "村里"]}, "day": {"$ref": "#/$defs/day"}},
    "required": ["place", "day"],
    "additionalProperties": False,
    "$defs": {"day": {"type": "integer", "minimum": 1, "maximum": 7}},
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = {"weather": WEATHER, "time-now": NOTHING}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 20, vocab_size=340)


@pytest.fixture(scope="module")
def parsed(tokenizer: Tokenizer) -> GrammarTokenizer:
    return GrammarTokenizer(tokenizer, vocab_size=tokenizer.vocab_size, stop_ids=tokenizer.reserved.ends())


def rules(parsed: GrammarTokenizer, tokenizer: Tokenizer, **more: Any) -> CallRules:
    return CallRules(
        marker=tokenizer.turns.call[0],
        stop_ids=tokenizer.reserved.ends(),
        vocab_size=tokenizer.vocab_size,
        calls=Grammar.of_calls(TOOLS, parsed),
        **more,
    )


def calls_of(tokenizer: Tokenizer, answer: list[int]) -> list[Any]:
    """The JSON between the markers, read by another parser."""
    marker, texts = tokenizer.turns.call[0], list[list[int]]()
    for token in answer:
        if token == marker:
            texts.append([])
        else:
            texts[-1].append(token)
    return [json.loads(tokenizer.decode(ids)) for ids in texts]


def drawn(made: CallRules, tokenizer: Tokenizer, generator: random.Random) -> list[int]:
    mask, answer = made.mask(), list[int]()
    while not answer or answer[-1] not in tokenizer.reserved.ends():
        answer.append(generator.choice(allowed(mask, answer)))
        assert len(answer) < 2000
    return answer


@pytest.mark.parametrize("parallel", [True, False])
def test_a_forced_answer_is_nothing_but_calls_by_their_schemas(
    tokenizer: Tokenizer, parsed: GrammarTokenizer, parallel: bool
) -> None:
    made, generator, numbers = rules(parsed, tokenizer, must_call=True, parallel=parallel), random.Random(3), set()
    names = set()
    for _ in range(30):
        calls = calls_of(tokenizer, drawn(made, tokenizer, generator))
        numbers.add(len(calls))
        for call in calls:
            assert list(call) == ["name", "arguments"]
            names.add(call["name"])
            if call["name"] == "weather":
                assert call["arguments"]["place"] in {"mill", "村里"}
                assert 1 <= call["arguments"]["day"] <= 7
            else:
                assert call == {"name": "time-now", "arguments": {}}
    assert names == {"weather", "time-now"}
    assert (max(numbers) > 1) == parallel
    assert min(numbers) == 1


def test_a_free_answer_says_what_it_likes_until_it_calls(tokenizer: Tokenizer, parsed: GrammarTokenizer) -> None:
    mask = rules(parsed, tokenizer).mask()
    said = tokenizer.encode('{"name": nothing')
    assert allowed(mask, []) == allowed(mask, said) == list(range(tokenizer.vocab_size))
    begun = [*said, tokenizer.turns.call[0]]
    opening = {tokenizer.decode([id_])[:1] for id_ in allowed(mask, begun)}
    assert opening == {"{", ""}  # a space that opens a text says nothing


def test_a_text_of_a_form_may_be_followed_or_replaced_by_a_call(tokenizer: Tokenizer, parsed: GrammarTokenizer) -> None:
    made = rules(parsed, tokenizer, text=Grammar.of_regex("ab|cd", parsed))
    marker = tokenizer.turns.call[0]
    first, halfway = allowed(made.mask(), []), tokenizer.encode("a")
    assert marker in first
    assert {tokenizer.decode([id_])[:1] for id_ in first if id_ != marker} == {"a", "c", ""}
    assert marker not in allowed(made.mask(), halfway)
    assert marker in allowed(made.mask(), tokenizer.encode("ab"))


def test_several_answers_to_one_request_keep_apart(tokenizer: Tokenizer, parsed: GrammarTokenizer) -> None:
    mask = rules(parsed, tokenizer, must_call=True).mask()
    marker, one = tokenizer.turns.call[0], tokenizer.encode('{"name":"weather","arguments":{"place":"mill","day":3}}')
    other = tokenizer.encode('{"name":"time-now","arguments":{}}')
    for length in range(max(len(one), len(other)) + 1):  # in turn, as the engine asks
        for ids in (one, other):
            alone = rules(parsed, tokenizer, must_call=True).mask()
            answer = [marker, *ids[:length]]
            assert torch.equal(mask(answer), alone(answer))


def test_a_forbidden_token_is_the_only_one(tokenizer: Tokenizer) -> None:
    mask = forbid(5, vocab_size=9)
    assert allowed(mask, []) == allowed(mask, [1]) == [0, 1, 2, 3, 4, 6, 7, 8]


def test_a_schema_that_is_none_is_refused(parsed: GrammarTokenizer) -> None:
    with pytest.raises(DataError, match="malformed, unsupported or too complex"):
        Grammar.of_calls({"weather": {"type": "wizard"}}, parsed)
    with pytest.raises(DataError, match="characters"):
        Grammar.of_calls({"weather": {"enum": ["x" * 70_000]}}, parsed)


def test_walking_a_call_grammar_alone_gives_the_object(tokenizer: Tokenizer, parsed: GrammarTokenizer) -> None:
    found = json.loads(walk(Grammar.of_calls({"time": NOTHING}, parsed).mask(), tokenizer, random.Random(0)))
    assert found == {"name": "time", "arguments": {}}
