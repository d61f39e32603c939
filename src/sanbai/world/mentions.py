"""What an answer says, read without understanding: the values it names, its numbers, its yes or no, its refusals."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

from sanbai.world.lexicon import NUMBER_WORDS, category

_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+")
_NOT_KNOWN = re.compile(
    r"\b(?:do(?:es)? not|don't|doesn't|cannot|can't|can not|could not|not|never|nobody|no one) (?:really |be )?"
    r"(?:know|knows|known|say|says|tell|tells|told|said|sure|written)\b|\bunknown\b"
)
_REFUSAL = re.compile(
    r"\b(?:will not|won't|cannot|can't|can not|do not want to|am not able to|must not|refuse to) "
    r"(?:help|do|explain|write|show|give|assist|tell you how|support)\b|\bi refuse\b|\bwould (?:hurt|harm|do harm)\b"
)


@dataclass(frozen=True)
class Said:
    """One text, tokenised once: lower-case words and numbers in their order."""

    text: str

    @cached_property
    def lowered(self) -> str:
        """The text in lower case, with plain apostrophes."""
        return self.text.lower().replace("’", "'")

    @cached_property
    def tokens(self) -> list[str]:
        """Words (an English possessive's `'s` cut off) and numbers."""
        return [token.removesuffix("'s") for token in _TOKEN.findall(self.lowered)]

    @cached_property
    def words(self) -> frozenset[str]:
        """The distinct tokens."""
        return frozenset(self.tokens)

    def values(self, name: str) -> list[str]:
        """Return the category's values in the order of their mention, with repetitions."""
        return self.pick(category(name))

    def pick(self, forms: dict[str, str]) -> list[str]:
        """Return the values of any mapping from written form to value, in the order of their mention."""
        found = [forms[token] for token in self.tokens if token in forms]
        if any(" " in form for form in forms):
            pairs = (f"{first} {second}" for first, second in zip(self.tokens, self.tokens[1:], strict=False))
            found += [forms[pair] for pair in pairs if pair in forms]
        return found

    @cached_property
    def digits(self) -> list[int]:
        """The numbers written in digits, at most nine of them counted in each."""
        return [int(token[:9]) for token in self.tokens if token[0].isdigit()]

    @cached_property
    def numbers(self) -> list[int]:
        """The numbers in digits or as words up to twenty."""
        return [
            int(token[:9]) if token[0].isdigit() else NUMBER_WORDS[token]
            for token in self.tokens
            if token[0].isdigit() or token in NUMBER_WORDS
        ]

    @cached_property
    def negates(self) -> bool:
        """Whether a word of negation occurs."""
        return not self.words.isdisjoint({"not", "no", "never", "none", "nobody", "nothing"}) or "n't" in self.lowered

    @cached_property
    def says_not_known(self) -> bool:
        """Whether it says that something is not known or not told."""
        return _NOT_KNOWN.search(self.lowered) is not None

    @cached_property
    def refuses(self) -> bool:
        """Whether it declines to help."""
        return _REFUSAL.search(self.lowered) is not None

    def holds(self, wanted: str) -> bool:
        """Whether any of the alternatives `a|b` occurs as a word, or as its simple plural or singular."""
        return any(
            not self.words.isdisjoint(forms) if " " not in option else option in self.lowered
            for option, forms in _alternatives(wanted)
        )


@cache
def _alternatives(wanted: str) -> tuple[tuple[str, frozenset[str]], ...]:
    options = wanted.lower().split("|")
    return tuple(
        (option, frozenset({option, f"{option}s", f"{option}es", option.removesuffix("s")})) for option in options
    )


@cache
def forms_of(options: tuple[str, ...]) -> dict[str, str]:
    """Return written forms of the options: themselves and their simple plurals, in lower case."""
    forms = {option.lower(): option for option in options}
    return {f"{form}s": option for form, option in forms.items()} | forms


def same_sentence_twice(text: str) -> bool:
    """Whether a sentence of three or more words comes back in the same text."""
    sentences = [part.strip().lower() for part in re.split(r"[.!?\n]+", text)]
    long = [sentence for sentence in sentences if sentence.count(" ") >= 2]
    return len(set(long)) < len(long)


def repeats(tokens: list[str]) -> bool:
    """Whether five tokens in a row come back, or one token stands three times in a row."""
    fives = [tuple(tokens[start : start + 5]) for start in range(len(tokens) - 4)]
    return len(set(fives)) < len(fives) or any(
        first == second == third for first, second, third in zip(tokens, tokens[1:], tokens[2:], strict=False)
    )


def foreign(said: Said, categories: Iterable[str], known: Said) -> set[str]:
    """Return the values of the categories that the text names and the known text does not."""
    return {value for name in categories for value in {*said.values(name)} - {*known.values(name)}}
