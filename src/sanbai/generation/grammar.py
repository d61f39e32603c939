"""Answers that follow a grammar: which tokens may come next, so that JSON, a schema or a regular expression is met.

llguidance parses (docs/decisions/0028-llguidance.md). A `Grammar` is compiled once, under limits, and gives a mask
function for each request; the engine asks it before every token (`Request.mask`).

A token that opens a text stands for its bytes without the prefix that the tokenizer puts there (`Tokenizer.prefix`),
so an answer's first token has spellings of its own.

Shapes: V vocabulary of the model, which may be larger than the tokenizer's, S spellings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from torch import Tensor

from sanbai.foundation.errors import DataError
from sanbai.generation.request import TokenMask
from sanbai.text.tokenizer import Tokenizer

MOST_CHARACTERS = 65_536
#: A few hundred milliseconds for what people write; what would take longer is refused. No message quotes the grammar.
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000, step_lexer_fuel=200_000, max_grammar_size=100_000, verbose_errors=False
)


class Spellings:
    """What tokens stand for at one kind of place, each spelling once, as llguidance wants it.

    `place_V`: each token's spelling among the S, -1 of one that stands for nothing.
    """

    def __init__(
        self,
        spelled: Sequence[bytes],
        *,
        reserved: Collection[int],
        stop_ids: Collection[int],
        cut: Callable[[bytes], Sequence[bytes]],
    ) -> None:
        """Number the spellings.

        Args:
            spelled: what each token stands for, V of them; one that stands for nothing is never allowed.
            reserved: ids that no text gives.
            stop_ids: those of them that end an answer.
            cut: bytes into what the tokenizer's tokens would stand for here. Where a grammar leaves no choice of bytes,
                only the first of these is allowed: so the model has learned to read them.
        """
        order = sorted(reserved)
        found = [spelled[id_] for id_ in order]
        self._place_of: dict[bytes, int] = {}
        place_V = torch.full((len(spelled),), -1)
        place_V[order] = torch.arange(len(order))
        for id_, spelling in enumerate(spelled):
            if id_ not in reserved and spelling:
                place_V[id_] = self._place(spelling, found)
        for byte in range(256):  # so that whatever was written can be told
            self._place(bytes([byte]), found)
        self.place_V = place_V
        stops = [order.index(id_) for id_ in sorted(stop_ids)]
        place_of = self._place_of

        class Wrapped:
            eos_token_id, bos_token_id = stops[0], None
            tokens, special_token_ids = found, list(range(len(order)))

            def __call__(self, text: bytes | str) -> list[int]:
                pieces = cut(text if isinstance(text, bytes) else text.encode())
                known = [[piece] if piece in place_of else [bytes([byte]) for byte in piece] for piece in pieces]
                return [place_of[part] for parts in known for part in parts]

        self.parsed = LLTokenizer(TokenizerWrapper(Wrapped()), n_vocab=len(found), eos_token=stops)

    def bytes_of(self, text: bytes) -> list[int]:
        """Return the spellings of a text byte by byte."""
        return [self._place_of[bytes([byte])] for byte in text]

    def allowed(self, matcher: LLMatcher) -> Tensor:
        """Return which tokens may come next, bool_V."""
        allowed_S = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8) > 0
        return allowed_S[self.place_V] & (self.place_V >= 0)

    def _place(self, spelling: bytes, found: list[bytes]) -> int:
        if spelling not in self._place_of:
            self._place_of[spelling] = len(found)
            found.append(spelling)
        return self._place_of[spelling]


class GrammarTokenizer:
    """A tokenizer as grammars see it; made once a model."""

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int, stop_ids: Collection[int]) -> None:
        """Spell out every token.

        Args:
            tokenizer: the model's.
            vocab_size: V.
            stop_ids: tokens that end an answer, allowed where the grammar is complete.
        """
        prefix, reserved = tokenizer.prefix, tokenizer.reserved_ids
        spelled = [tokenizer.token_bytes(id_) for id_ in range(vocab_size)]
        stripped = [one if id_ in reserved else one.removeprefix(prefix.encode()) for id_, one in enumerate(spelled)]

        def cut_opening(text: bytes) -> list[bytes]:
            ids = tokenizer.encode(text.decode("utf-8", errors="ignore"))
            pieces = [*(stripped[id_] for id_ in ids[:1]), *(spelled[id_] for id_ in ids[1:])]
            return pieces if b"".join(pieces) == text else [text]

        def cut_within(text: bytes) -> list[bytes]:
            said = text.decode("utf-8", errors="ignore")
            ids = tokenizer.encode(said.removeprefix(prefix)) if said.startswith(prefix) else []
            pieces = [spelled[id_] for id_ in ids]
            return pieces if b"".join(pieces) == text else cut_longest(text, known)

        known = frozenset(one for id_, one in enumerate(spelled) if one and id_ not in reserved)
        self.stripped = stripped
        self.opening = Spellings(stripped, reserved=reserved, stop_ids=stop_ids, cut=cut_opening)
        self.within = Spellings(spelled, reserved=reserved, stop_ids=stop_ids, cut=cut_within)
        self.silent_V = torch.tensor([bool(prefix) and one == prefix.encode() for one in spelled])
        """Tokens that say nothing where they open a text: the prefix alone."""


def cut_longest(text: bytes, known: Collection[bytes]) -> list[bytes]:
    """Cut a text into known pieces, each time the longest that fits; where none fits, a byte."""
    pieces, place, longest = [], 0, max(map(len, known))
    while place < len(text):
        lengths = range(min(longest, len(text) - place), 0, -1)
        length = next((length for length in lengths if text[place : place + length] in known), 1)
        pieces.append(text[place : place + length])
        place += length
    return pieces


class Grammar:
    """What an answer must match."""

    def __init__(self, rules: str, tokenizer: GrammarTokenizer) -> None:
        """Compile rules in llguidance's form.

        Raises:
            DataError: they are malformed, too complex, or met by nothing.
        """
        self._tokenizer = tokenizer
        self._opening = LLMatcher(tokenizer.opening.parsed, rules, log_level=0, limits=LIMITS)
        self._within = LLMatcher(tokenizer.within.parsed, rules, log_level=0, limits=LIMITS)
        if self._opening.is_error() or self._within.is_error():
            raise DataError("the schema or expression is malformed, unsupported or too complex; make it simpler")
        if not tokenizer.opening.allowed(self._opening.deep_copy()).any():
            raise DataError("the schema or expression allows no answer; loosen it")

    @classmethod
    def of_schema(cls, schema: Mapping[str, Any], tokenizer: GrammarTokenizer) -> Grammar:
        """Return the grammar of a JSON schema, written without white space between its parts.

        Raises:
            DataError: it is malformed, has what is not supported, or is too complex.
        """
        try:
            rules = LLMatcher.grammar_from_json_schema(dict(schema), overrides={"whitespace_flexible": False})
        except ValueError:
            raise DataError("the schema is no JSON schema") from None
        _check_length(rules)
        return cls(rules, tokenizer)

    @classmethod
    def of_regex(cls, expression: str, tokenizer: GrammarTokenizer) -> Grammar:
        """Return the grammar of a regular expression that the whole answer matches.

        Raises:
            DataError: it is malformed, has what is not supported, or is too complex.
        """
        _check_length(expression)
        return cls(LLMatcher.grammar_from_regex(expression), tokenizer)

    @classmethod
    def of_calls(cls, parameters: Mapping[str, Mapping[str, Any]], tokenizer: GrammarTokenizer) -> Grammar:
        """Return the grammar of one call of a function: `{"name":...,"arguments":...}` without white space.

        Args:
            parameters: JSON schema of the arguments, by the function's name; references within a schema start at it.
            tokenizer: of the answers.

        Raises:
            DataError: as `of_schema`.
        """
        rules = [f"start: {' | '.join(f'call{number}' for number in range(len(parameters)))}"]
        for number, (name, schema) in enumerate(parameters.items()):
            opening = json.dumps(f'{{"name":{json.dumps(name)},"arguments":')
            whole = json.dumps(dict(schema) | {"x-guidance": {"whitespace_flexible": False}})
            rules += [f'call{number}: {opening} arguments{number} "}}"', f"arguments{number}: %json {whole}"]
        text = "\n".join(rules)
        _check_length(text)
        return cls(LLMatcher.grammar_from_lark(text), tokenizer)

    def mask(self) -> TokenMask:
        """Return a mask function for the answers to one request."""
        tokenizer = self._tokenizer
        states: dict[tuple[int, ...], LLMatcher] = {}  # answers so far -> where their matcher stands

        def allowed(answer: Sequence[int]) -> Tensor:
            key = tuple(answer)
            if not key:
                return tokenizer.opening.allowed(self._opening.deep_copy()) | tokenizer.silent_V
            matcher = states.pop(key[:-1], None)
            if matcher is not None:
                told = tokenizer.within.place_V[list(key[-1:])].tolist()
            else:  # it begins, or two answers were the same so far
                matcher, told = self._within.deep_copy(), tokenizer.within.bytes_of(tokenizer.stripped[key[0]])
                told += tokenizer.within.place_V[list(key[1:])].tolist()
            if min(told, default=0) < 0 or not matcher.consume_tokens(told):
                raise DataError("the answer has left its grammar")
            states[key] = matcher
            return tokenizer.within.allowed(matcher)

        return allowed


def _check_length(rules: str) -> None:
    if len(rules) > MOST_CHARACTERS:
        raise DataError(f"a schema or expression of {len(rules)} characters; wanted at most {MOST_CHARACTERS}")
