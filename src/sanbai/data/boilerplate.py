"""Lines that speak of the page and not of anything: by what they say, and by coming back in document after document."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sanbai.data.fingerprint import fingerprint
from sanbai.data.recipe import DataRecipe

_PAGE_NUMBER = re.compile(r"\bpage \d+ of \d+\b")
#: Three or more short names between bars; a line that begins with a bar is a row of a table.
_LINKS = re.compile(r"[^|]{1,24}(?: \| [^|]{1,24}){2,}$")


@dataclass(frozen=True, slots=True)
class Boilerplate:
    """What to remove from a corpus."""

    phrases: tuple[str, ...]
    max_words: int
    recurring: frozenset[bytes]

    def strip(self, text: str) -> tuple[str, int]:
        """Return the text without its boilerplate lines, and how many they were; the blank lines around them stay."""
        if not self.recurring and not self._may_hold_some(text):
            return text, 0
        lines = text.split("\n")
        kept = [line for line in lines if not self._is_boilerplate(line)]
        if len(kept) == len(lines):
            return text, 0
        return "\n".join(kept).strip("\n"), len(lines) - len(kept)

    def _may_hold_some(self, text: str) -> bool:
        """A quick look at a whole text: no searched phrase, no number after "page", no bar between words."""
        lowered = text.lower()
        return " | " in text or "page " in lowered or any(phrase in lowered for phrase in self.phrases)

    def _is_boilerplate(self, line: str) -> bool:
        if self.recurring and line and _key(line) in self.recurring:
            return True
        if not self._may_hold_some(line) or num_words(line) > self.max_words:
            return False
        lowered = line.lower()
        return bool(_PAGE_NUMBER.search(lowered) or _LINKS.match(line)) or any(map(lowered.__contains__, self.phrases))


def find_boilerplate(texts: Iterable[str], recipe: DataRecipe) -> Boilerplate:
    """Return what the recipe calls boilerplate; lines that come back are counted over the texts.

    Args:
        texts: different ones: copies of a document would make its own lines look recurring.
        recipe: phrases and limits.
    """
    phrases = tuple(phrase.lower() for phrase in recipe.boilerplate_phrases)
    recurring = _find_recurring(texts, recipe) if recipe.remove_recurring_lines else frozenset[bytes]()
    return Boilerplate(phrases, recipe.boilerplate_max_words, recurring)


def _find_recurring(texts: Iterable[str], recipe: DataRecipe) -> frozenset[bytes]:
    counts: Counter[bytes] = Counter()
    num_texts = 0
    for text in texts:
        num_texts += 1
        counts.update({_key(line) for line in text.split("\n") if _could_recur(line, recipe)})
    least = max(recipe.boilerplate_min_documents, recipe.boilerplate_share * num_texts)
    return frozenset(key for key, count in counts.items() if count >= least)


def num_words(text: str) -> int:
    """Return the number of words; characters of scripts without spaces are words."""
    return len(text.split()) if text.isascii() else len(fingerprint(text).split())


def _could_recur(line: str, recipe: DataRecipe) -> bool:
    """Whether a line is long enough; the first test is cheap and never wrong."""
    return len(line) >= recipe.boilerplate_min_words and num_words(line) >= recipe.boilerplate_min_words


def _key(line: str) -> bytes:
    return hashlib.blake2b(line.strip().lower().encode(), digest_size=12).digest()
