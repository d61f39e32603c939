"""Letters with their writers' feelings: texts to classify, of two sentences that never name the feeling."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from sanbai.foundation.errors import DataError
from sanbai.foundation.seeds import python_random
from sanbai.world.tasks.classifying import FEELING_TEXTS, draw_feeling
from sanbai.world.tasks.task import Scene
from sanbai.world.village import Village

FEELINGS = tuple(FEELING_TEXTS)
MAX_REPEATS = 1000
"""Letters in a row that may repeat earlier ones before the stream is exhausted."""


@dataclass(frozen=True)
class Letter:
    """A text and the feeling of who wrote it."""

    id: str
    text: str
    feeling: str


def letters(village: Village, seed: int, *, num: int, heldout: bool = False) -> Iterator[Letter]:
    """Yield `num` different letters; held-out ones name other people and are none of the others.

    Raises:
        DataError: there are not so many.
    """
    scene = Scene(village, python_random(seed, "letters", "heldout" if heldout else "train"), heldout=heldout)
    seen: set[str] = set()
    repeats = 0
    while len(seen) < num:
        text, feeling = draw_feeling(scene)
        identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        # Letters that name nobody could be written on both sides: the hash decides.
        if identity in seen or (int(identity[-1], 16) % 4 == 0) != heldout:
            repeats += 1
            if repeats == MAX_REPEATS:
                raise DataError(f"the world writes only {len(seen)} different letters, wanted {num}; ask for fewer")
            continue
        repeats = 0
        seen.add(identity)
        yield Letter(f"letter-{identity}", text, feeling)
