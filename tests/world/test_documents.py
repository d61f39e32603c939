from __future__ import annotations

import hashlib
import re
from collections import Counter

import pytest

from sanbai.world.documents import PlantedDocument, documents
from sanbai.world.recipe import WorldRecipe
from sanbai.world.tasks import memory, reading
from sanbai.world.village import Village

NUM_BYTES = 1_500_000


@pytest.fixture(scope="module")
def stream(village: Village) -> list[PlantedDocument]:
    return list(documents(village, 1, num_bytes=NUM_BYTES))


def digest(stream: list[PlantedDocument]) -> str:
    return hashlib.sha256("\0".join(f"{d.id} {d.text} {d.dirt}" for d in stream).encode()).hexdigest()


def test_documents_are_reproducible_byte_for_byte_and_depend_on_the_seed(village: Village) -> None:
    first, again, other = (list(documents(village, seed, num_bytes=200_000)) for seed in (4, 4, 5))
    assert digest(first) == digest(again)
    assert digest(first) != digest(other)


def test_a_longer_stream_begins_with_the_shorter_one(village: Village, stream: list[PlantedDocument]) -> None:
    short = list(documents(village, 1, num_bytes=100_000))
    assert stream[: len(short)] == short


def test_the_stream_ends_with_the_bytes_asked_for(stream: list[PlantedDocument]) -> None:
    sizes = [len(document.text.encode()) for document in stream]
    assert sum(sizes) >= NUM_BYTES > sum(sizes[:-1])


def test_rows_are_document_records(stream: list[PlantedDocument]) -> None:
    assert {*stream[0].row} == {"id", "text", "source", "licence", "language"}
    assert len({document.id for document in stream}) == len(stream)


def test_chinese_has_its_share_of_the_bytes(stream: list[PlantedDocument]) -> None:
    chinese = sum(len(document.text.encode()) for document in stream if document.language == "zh")
    assert chinese / NUM_BYTES == pytest.approx(0.05, abs=0.002)
    for document in stream:
        has_chinese = any("\u4e00" <= character <= "\u9fff" for character in document.text)
        assert has_chinese == (document.language == "zh")


def test_nothing_repeats_but_the_planted_duplicates(stream: list[PlantedDocument]) -> None:
    by_id = {document.id: document for document in stream}
    counts = Counter(document.text for document in stream)
    repeated = sum(count - 1 for count in counts.values())
    exact = [document for document in stream if document.dirt == "exact duplicate"]
    assert repeated == len(exact) > 0.01 * len(stream)
    for document in exact:
        assert by_id[document.original].text == document.text
        assert by_id[document.original].dirt == "clean"


def shingles(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[start : start + 3]) for start in range(len(words) - 2)}


def test_near_duplicates_are_near_and_clean_documents_are_not(stream: list[PlantedDocument]) -> None:
    by_id = {document.id: document for document in stream}
    near = [document for document in stream if document.dirt == "near duplicate"]
    assert len(near) > 0.01 * len(stream)
    for document in near:
        original = by_id[document.original]
        first, second = shingles(document.text), shingles(original.text)
        assert document.text != original.text
        assert len(first & second) / len(first | second) > 0.8
    clean = [shingles(document.text) for document in stream if document.dirt == "clean" and len(document.text) > 200][
        :300
    ]
    close = sum(
        len(first & second) / len(first | second) > 0.8
        for place, first in enumerate(clean)
        for second in clean[place + 1 :]
    )
    assert close == 0


def test_planted_dirt_is_found_by_independent_patterns(stream: list[PlantedDocument]) -> None:
    mail = re.compile(r"[\w.]+@[\w.-]+\.example")
    phone = re.compile(r"(?:\+\d\d |\(?0?555\)?)[ -]?\(?\d[\d -]{5,}")
    kinds = Counter()
    for document in stream:
        kinds[document.dirt] += 1
        has_contact = bool(mail.search(document.text) or phone.search(document.text))
        if document.form != "gibberish":
            assert has_contact == (document.dirt == "contact"), document.text
        if document.dirt in {"contact", "insult", "boilerplate"}:
            assert document.planted
            assert all(part in document.text for part in document.planted)
        has_insult = bool(
            re.search(r"zorkel|mugwit|dranflop|snibber|plonkard|gruffnut|wobblehead|scrumpit", document.text)
        )
        assert has_insult == (document.dirt == "insult")
    assert all(count >= 0.005 * len(stream) for count in kinds.values())
    assert len(kinds) == 7


def test_gibberish_is_not_the_villages_english(stream: list[PlantedDocument]) -> None:
    def common(text: str) -> float:
        words = text.split()
        return len({*words} & {"the", "and", "is", "in", "a", "to", "of", "What", "Answer:", "Question:"}) / len(words)

    for document in stream:
        if document.dirt == "gibberish":
            assert common(document.text) < 0.02


def test_dirt_can_be_turned_off(village: Village) -> None:
    recipe = WorldRecipe(
        exact_duplicate_share=0,
        near_duplicate_share=0,
        boilerplate_share=0,
        gibberish_share=0,
        contact_share=0,
        insult_share=0,
    )
    assert {document.dirt for document in documents(village, 1, num_bytes=100_000, recipe=recipe)} == {"clean"}


def test_every_villager_is_written_about(village: Village, stream: list[PlantedDocument]) -> None:
    entries = " ".join(document.text for document in stream if document.form in {"entry", "dialogue", "gossip"})
    assert all(entries.count(name) >= 10 for name in village.folk)


def test_exercises_use_training_phrasings_alone(stream: list[PlantedDocument]) -> None:
    text = "\n".join(document.text for document in stream)
    for frame in reading.FRAMES.heldout[:1]:
        assert frame.split("{")[0] not in text
    for phrase in memory.CHECKS.heldout:
        assert phrase.split("{")[0] not in text


def test_the_vocabulary_is_closed(stream: list[PlantedDocument]) -> None:
    words = {
        word.lower()
        for document in stream
        if document.dirt == "clean" and document.language == "en"
        for word in re.findall(r"[A-Za-z]+", document.text)
    }
    assert 600 < len(words) < 1500


@pytest.mark.long
def test_twenty_megabytes_do_not_run_dry(village: Village) -> None:
    seen: set[bytes] = set()
    size = repeats = 0
    for document in documents(village, 1, num_bytes=20_000_000):
        mark = hashlib.blake2b(document.text.encode(), digest_size=16).digest()
        repeats += mark in seen and document.dirt != "exact duplicate"
        seen.add(mark)
        size += len(document.text.encode())
    assert size >= 20_000_000
    assert repeats == 0
