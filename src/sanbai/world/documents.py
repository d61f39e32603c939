"""Documents of the village as one stream: prose, exercises, Chinese, and planted dirt with its truth.

The stream is a function of the village, the seed and the recipe alone. Memory stays small: the digest of each text, so
that nothing repeats by accident, and the last thousand clean documents, from which duplicates are planted.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sanbai.foundation.seeds import python_random
from sanbai.world.chinese import CHINESE_WRITERS
from sanbai.world.dirt import gibberish, nearly_same, with_boilerplate, with_contact, with_insult
from sanbai.world.exercises import write_comprehension, write_exercise
from sanbai.world.prose import WRITERS
from sanbai.world.recipe import WorldRecipe
from sanbai.world.tasks.task import Scene
from sanbai.world.village import Village

Dirt = Literal["clean", "exact duplicate", "near duplicate", "boilerplate", "gibberish", "contact", "insult"]
NEAR_DUPLICATE_WORDS = 45
"""Only texts of at least so many words get near duplicates: in shorter ones a changed word is a changed text."""
MEMORY = 1000
"""Clean documents kept to be repeated."""


@dataclass(frozen=True)
class PlantedDocument:
    """A document record and what was planted in it."""

    id: str
    text: str
    language: Literal["en", "zh"]
    form: str
    """entry, letter, diary, exercise ..., or gibberish."""
    dirt: Dirt = "clean"
    original: str = ""
    """The id of the document that a duplicate repeats."""
    planted: tuple[str, ...] = ()
    """The boilerplate lines, address, number or insult in it."""

    @property
    def row(self) -> dict[str, str]:
        """The document record: `{"id", "text", "source", "licence", "language"}`, without the truth."""
        return {
            "id": self.id, "text": self.text, "source": "world", "licence": "Apache-2.0", "language": self.language,
        }  # fmt: skip


def documents(
    village: Village, seed: int, *, num_bytes: int | None = None, recipe: WorldRecipe | None = None
) -> Iterator[PlantedDocument]:
    """Yield documents until their texts hold `num_bytes` of UTF-8 (the recipe's `document_bytes` by default)."""
    recipe = recipe or WorldRecipe()
    wanted = recipe.document_bytes if num_bytes is None else num_bytes
    scene = Scene(village, python_random(seed, "documents"), everybody=True)
    dirt_generator = python_random(seed, "documents", "dirt")
    clean: deque[PlantedDocument] = deque(maxlen=MEMORY)
    digests: set[bytes] = set()
    written = {"en": 0, "zh": 0}
    exercises = 0
    number = 0
    while sum(written.values()) < wanted:
        language: Literal["en", "zh"] = "zh" if written["zh"] < recipe.chinese_share * sum(written.values()) else "en"
        is_exercise = language == "en" and exercises < recipe.exercise_share * written["en"]
        form, text = _write(scene, language, is_exercise=is_exercise)
        if not _is_new(text, digests):
            continue
        document = PlantedDocument(f"document-{number:07d}", text, language, form)
        if language == "en":
            planted = _plant(dirt_generator, document, clean, recipe)
            if planted.dirt in {"clean", "exact duplicate"} or _is_new(planted.text, digests):
                document = planted
        if document.dirt == "clean":
            clean.append(document)
        size = len(document.text.encode())
        written[document.language] += size
        exercises += size if is_exercise else 0
        number += 1
        yield document


def _is_new(text: str, digests: set[bytes]) -> bool:
    """Whether the text was not seen before; it is from now on."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    if digest in digests:
        return False
    digests.add(digest)
    return True


def _write(scene: Scene, language: str, *, is_exercise: bool) -> tuple[str, str]:
    """Write one clean text; return its form and the text."""
    if is_exercise:
        if scene.chance(0.4):
            return "comprehension", write_comprehension(scene)
        return "exercise", write_exercise(scene)
    writers = CHINESE_WRITERS if language == "zh" else WRITERS
    form = scene.random.choices(list(writers), [share for _, share in writers.values()])[0]
    return form, writers[form][0](scene)


def _plant(
    generator: random.Random, document: PlantedDocument, clean: deque[PlantedDocument], recipe: WorldRecipe
) -> PlantedDocument:
    """Return the document, or one with dirt of a kind drawn by the recipe's shares."""
    shares: dict[Dirt, float] = {
        "exact duplicate": recipe.exact_duplicate_share,
        "near duplicate": recipe.near_duplicate_share,
        "boilerplate": recipe.boilerplate_share,
        "gibberish": recipe.gibberish_share,
        "contact": recipe.contact_share,
        "insult": recipe.insult_share,
    }
    kinds: list[Dirt] = ["clean", *shares]
    dirt = generator.choices(kinds, [max(0.0, 1.0 - sum(shares.values())), *shares.values()])[0]
    name, text, form = document.id, document.text, document.form
    if dirt == "gibberish":
        return PlantedDocument(name, gibberish(generator), "en", "gibberish", dirt)
    if dirt in {"exact duplicate", "near duplicate"}:
        near = dirt == "near duplicate"
        choices = [
            old for old in clean if old.language == "en" and (not near or old.text.count(" ") >= NEAR_DUPLICATE_WORDS)
        ]
        if not choices:
            return document
        original = generator.choice(choices)
        repeated = nearly_same(generator, original.text) if near else original.text
        return PlantedDocument(name, repeated, "en", original.form, dirt, original=original.id)
    if dirt == "boilerplate":
        text, planted = with_boilerplate(generator, text)
    elif dirt == "contact":
        text, planted = with_contact(generator, text)
    elif dirt == "insult":
        text, planted = with_insult(generator, text)
    else:
        return document
    return PlantedDocument(name, text, "en", form, dirt, planted=planted)
