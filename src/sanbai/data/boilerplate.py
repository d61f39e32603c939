"""Lines that speak of the page and not of anything: by what they say, and by coming back in document after document."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sanbai.data.fingerprint import fingerprint
from sanbai.data.recipe import DataRecipe


@dataclass(frozen=True, slots=True)
class Boilerplate:
    """What to remove from a corpus."""

    phrases: tuple[str, ...]
    max_words: int
    recurring: frozenset[bytes]

    def strip(self, text: str) -> tuple[str, int]:
        """Return the text without its boilerplate lines, and how many they were; the blank lines around them stay."""
        lowered = text.lower()
        phrases = [phrase for phrase in self.phrases if phrase in lowered]
        lines = text.split("\n")
        kept = [line for line in lines if not self._is_boilerplate(line, phrases)]
        if len(kept) == len(lines):
            return text, 0
        return "\n".join(kept).strip("\n"), len(lines) - len(kept)

    def _is_boilerplate(self, line: str, phrases: list[str]) -> bool:
        if self.recurring and line and _key(line) in self.recurring:
            return True
        lowered = line.lower() if phrases else ""
        return any(phrase in lowered for phrase in phrases) and num_words(line) <= self.max_words


def find_boilerplate(texts: Iterable[str], recipe: DataRecipe) -> Boilerplate:
    """Count in how many texts each line stands, and return what the recipe calls boilerplate.

    Args:
        texts: different ones: copies of a document would make its own lines look recurring.
        recipe: phrases and limits.
    """
    counts: Counter[bytes] = Counter()
    num_texts = 0
    for text in texts:
        num_texts += 1
        counts.update({_key(line) for line in text.split("\n") if _could_recur(line, recipe)})
    least = max(recipe.boilerplate_min_documents, recipe.boilerplate_share * num_texts)
    recurring = frozenset(key for key, count in counts.items() if count >= least)
    phrases = tuple(phrase.lower() for phrase in recipe.boilerplate_phrases)
    return Boilerplate(phrases, recipe.boilerplate_max_words, recurring)


def num_words(text: str) -> int:
    """Return the number of words; characters of scripts without spaces are words."""
    return len(text.split()) if text.isascii() else len(fingerprint(text).split())


def _could_recur(line: str, recipe: DataRecipe) -> bool:
    """Whether a line is long enough; the first test is cheap and never wrong."""
    return len(line) >= recipe.boilerplate_min_words and num_words(line) >= recipe.boilerplate_min_words


def _key(line: str) -> bytes:
    return hashlib.blake2b(line.strip().lower().encode(), digest_size=12).digest()
