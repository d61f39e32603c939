"""Invented languages: the village's English with other letters and another order of words.

A language is a permutation of the vowels, one of the other letters, and a rule for the words between two marks of
punctuation. So every text has the same number of bytes in each language, nothing of the grammar is shared in sight, and
the English is told back exactly.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sanbai.data.documents import Document
from sanbai.foundation.seeds import python_random
from sanbai.world.documents import PlantedDocument

WordOrder = Literal["straight", "reversed", "last first", "pairs swapped"]
ORDERS: tuple[WordOrder, ...] = ("straight", "reversed", "last first", "pairs swapped")

_VOWELS = "aeiou"
_OTHERS = "".join(letter for letter in string.ascii_lowercase if letter not in _VOWELS)
_WORDS = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*(?: [A-Za-z]+(?:['-][A-Za-z]+)*)+")


@dataclass(frozen=True)
class Language:
    """What English becomes.

    Attributes:
        name: `language-01` and so on.
        letters: what stands for a, b, ..., z; capitals follow.
        order: of the words between two marks.
    """

    name: str
    letters: str
    order: WordOrder

    def tell(self, english: str) -> str:
        """Return the text in this language."""
        table = str.maketrans(string.ascii_lowercase + string.ascii_uppercase, self.letters + self.letters.upper())
        return _WORDS.sub(lambda run: " ".join(_ordered(run[0].split(" "), self.order)), english).translate(table)


def invented_languages(num: int, seed: int) -> list[Language]:
    """Return `num` languages, their letters drawn by the seed and the orders of words taken in turn."""
    languages = []
    for number in range(num):
        generator = python_random(seed, "language", number)
        vowels, others = list(_VOWELS), list(_OTHERS)
        generator.shuffle(vowels)
        generator.shuffle(others)
        told = dict(zip(_VOWELS + _OTHERS, vowels + others, strict=True))
        letters = "".join(told[letter] for letter in string.ascii_lowercase)
        languages.append(Language(f"language-{number + 1:02d}", letters, ORDERS[number % len(ORDERS)]))
    return languages


def translated(documents: Iterable[PlantedDocument], languages: Sequence[Language]) -> Iterator[Document]:
    """Yield the clean English documents, each told in one language, the languages in turn."""
    clean = (planted for planted in documents if planted.language == "en" and planted.dirt == "clean")
    for number, planted in enumerate(clean):
        language = languages[number % len(languages)]
        row = planted.row
        yield Document(
            id=row["id"],
            text=language.tell(row["text"]),
            source=row["source"],
            licence=row["licence"],
            language=language.name,
        )


def _ordered(words: list[str], order: WordOrder) -> list[str]:
    match order:
        case "straight":
            return words
        case "reversed":
            return words[::-1]
        case "last first":
            return [words[-1], *words[:-1]]
        case "pairs swapped":
            pairs = [words[start : start + 2][::-1] for start in range(0, len(words), 2)]
            return [word for pair in pairs for word in pair]
