from __future__ import annotations

import random
from typing import Any

import pytest

from sanbai.data.cleaning import NUM_CLEANING_STEPS, CleanedCorpus, clean
from sanbai.data.documents import Document
from sanbai.data.fingerprint import fingerprint
from sanbai.data.recipe import DataRecipe
from sanbai.data.rules import symbol_share
from sanbai.foundation.errors import DataError

NAMES = ["Anna", "Bert", "Clara", "David", "Emma", "Fritz", "Greta", "Hugo", "Ida", "Jonas", "Karla", "Leo"]
VERBS = ["bakes", "sells", "finds", "paints", "mends", "carries", "loves", "hides", "counts", "brings"]
THINGS = ["bread", "apples", "a boat", "two hens", "the red hat", "old books", "a lamp", "warm soup", "honey", "wool"]
PLACES = ["the mill", "the bridge", "the market", "the school", "the pond", "the church", "the inn", "the forest"]


def story(chance: random.Random, sentences: int = 8) -> str:
    return " ".join(
        f"{chance.choice(NAMES)} {chance.choice(VERBS)} {chance.choice(THINGS)} near {chance.choice(PLACES)}."
        for _ in range(sentences)
    )


def village(count: int = 400) -> list[Document]:
    chance = random.Random(3)
    return [Document(f"clean-{number}", story(chance), "village", "CC0", "en") for number in range(count)]


def run(documents: list[Document], **options: Any) -> CleanedCorpus:
    return clean(documents, DataRecipe(**options))


def rules(corpus: CleanedCorpus) -> dict[str, str]:
    return {dropped.document.id: dropped.rule for dropped in corpus.dropped}


def kept(corpus: CleanedCorpus) -> dict[str, str]:
    return {document.id: document.text for document in [*corpus.train, *corpus.validation]}


def dirty_village() -> list[Document]:
    """Clean stories with dirt of every kind, each named for what should become of it."""
    chance = random.Random(4)
    documents = village()
    originals = documents[:40]
    documents += [Document(f"duplicate-{d.id}", d.text.upper() + "\n", d.source) for d in originals[:20]]
    documents += [Document(f"near-{d.id}", f"{d.text} Good night.", d.source) for d in originals[20:]]
    letters = "abcdefghijklmnopqrstuvwxyz"
    documents += [
        Document(f"gibberish-{n}", " ".join("".join(chance.choices(letters, k=6)) for _ in range(20)))
        for n in range(10)
    ]
    documents += [Document(f"repetition-{n}", f"{NAMES[n]} sleeps. " * 20 * (n + 1)) for n in range(5)]
    documents += [Document(f"length-{n}", f"{NAMES[n]} sleeps.") for n in range(5)]
    documents += [Document(f"symbols-{n}", f"a{n} b c d e " + "#*~ " * 9) for n in range(5)]
    documents += [Document(f"footer-{n}", f"{story(chance)}\nClick here to see the village hall.") for n in range(30)]
    documents += [Document(f"mail-{n}", f"{story(chance)} Write to {NAMES[n]}@village.example.") for n in range(6)]
    documents += [Document(f"phone-{n}", f"{story(chance)} Ring 555-010-012{n}.") for n in range(6)]
    documents += [Document(f"insult-{n}", f"{story(chance)} {NAMES[n]} is a zorkel!") for n in range(6)]
    return documents


def test_planted_dirt_is_found_and_clean_documents_stay() -> None:
    corpus = run(dirty_village(), insults=("Zorkel", "mugwit"))
    verdicts, texts = rules(corpus), kept(corpus)
    for name, rule in verdicts.items():
        kind = name.split("-")[0]
        if kind in {"gibberish", "repetition", "length", "symbols"}:
            assert rule == kind
        else:
            assert kind in {"clean", "duplicate", "near"}
            assert rule in {"duplicate", "near_duplicate"}
    counts = {rule: tally.documents for rule, tally in corpus.report.dropped.items()}
    assert counts == {
        "length": 5, "symbols": 5, "insult": 0, "repetition": 5, "gibberish": 10, "duplicate": 20, "near_duplicate": 20,
    }  # fmt: skip
    assert all(name in texts for name in (f"clean-{number}" for number in range(40, 400)))
    assert all("village hall" not in text for text in texts.values())
    assert corpus.report.boilerplate_lines == 30
    assert sum("[e-mail]" in text for text in texts.values()) == corpus.report.masked_emails == 6
    assert sum("[telephone]" in text for text in texts.values()) == corpus.report.masked_telephones == 6
    assert sorted(corpus.tagged) == [f"insult-{n}" for n in range(6)]
    assert set(corpus.tagged) <= set(texts), "insults are tagged, not dropped"


def test_of_near_duplicates_the_longest_is_kept() -> None:
    texts = kept(run(dirty_village()))
    assert all(f"near-clean-{n}" in texts and f"clean-{n}" not in texts for n in range(20, 40))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_of_the_input_changes_nothing(seed: int) -> None:
    documents = dirty_village()
    expected = run(documents, max_insult_share=0.0, insults=("zorkel",))
    random.Random(seed).shuffle(documents)
    found = run(documents, max_insult_share=0.0, insults=("zorkel",))
    assert found == expected


def test_every_document_is_kept_or_dropped_exactly_once() -> None:
    documents = dirty_village()
    corpus = run(documents)
    names = [d.id for d in corpus.train] + [d.id for d in corpus.validation] + [d.document.id for d in corpus.dropped]
    assert sorted(names) == sorted(document.id for document in documents)
    report = corpus.report
    dropped = sum(tally.documents for tally in report.dropped.values())
    assert report.read.documents == dropped + report.train.documents + report.validation.documents


def test_cleaning_what_was_cleaned_drops_nothing_more() -> None:
    once = run(dirty_village())
    again = run([*once.train, *once.validation])
    assert again.dropped == []
    assert kept(again) == kept(once)


def test_no_held_out_document_resembles_a_trained_one() -> None:
    corpus = run(dirty_village(), validation_share=0.3)
    assert len(corpus.validation) > 60
    trained = {fingerprint(document.text) for document in corpus.train}
    assert all(fingerprint(document.text) not in trained for document in corpus.validation)


def only(text: str, **options: Any) -> str:
    """The rule that drops one document among the village's, or "kept"."""
    return rules(run([*village(250), Document("it", text)], **options)).get("it", "kept")


@pytest.mark.parametrize(("num_words", "verdict"), [(4, "length"), (5, "kept"), (12, "kept"), (13, "length")])
def test_length_at_its_limits(num_words: int, verdict: str) -> None:
    documents = [
        Document("it", " ".join((NAMES[:6] + VERBS)[:num_words])),
        Document("other", "five words are just enough"),
    ]
    corpus = run(documents, min_words=5, max_words=12)
    assert rules(corpus).get("it", "kept") == verdict


def test_chinese_is_measured_in_characters() -> None:
    documents = [Document("four", "村里有鸡"), Document("five", "村里有磨坊。"), Document("other", "安娜每天烤面包。")]
    assert rules(run(documents)) == {"four": "length"}


@pytest.mark.parametrize(
    ("text", "share"), [("abcdef #*~!", 0.4), ("abcde #*~!?", 0.5), ("", 0.0), ("村里 a1 。", 0.2)]
)
def test_symbols_are_what_is_neither_letter_nor_digit(text: str, share: float) -> None:
    assert symbol_share(text) == pytest.approx(share)


@pytest.mark.parametrize(("limit", "verdict"), [(0.4, "kept"), (0.3999, "symbols")])
def test_symbols_at_their_limit(limit: float, verdict: str) -> None:
    """Eight of twenty visible characters."""
    assert only("ab cd ef gh ij kl #*~! #*~!", max_symbol_share=limit, gibberish_bits=30) == verdict


@pytest.mark.parametrize(("limit", "verdict"), [(0.25, "kept"), (0.24, "insult")])
def test_insults_at_their_limit(limit: float, verdict: str) -> None:
    """Two of eight words; a longer word that contains one is none."""
    text = "Anna calls Bert a zorkel, a zorkelish MUGWIT."
    assert only(text, insults=("zorkel", "mugwit"), max_insult_share=limit, gibberish_bits=30) == verdict


def test_an_insult_in_chinese_or_of_two_words_is_found() -> None:
    documents = [*village(20), Document("zh", "你这个大笨蛋快走开"), Document("two", "Bert is a silly goose today")]
    assert sorted(run(documents, insults=("笨蛋", "silly goose")).tagged) == ["two", "zh"]


@pytest.mark.parametrize(("words", "verdict"), [(199, "kept"), (200, "repetition")])
def test_repetition_is_tried_from_its_number_of_words_on(words: int, verdict: str) -> None:
    assert only(" ".join(["Anna", "sleeps", "well"][n % 3] for n in range(words)), gibberish_bits=30) == verdict


@pytest.mark.parametrize(("limit", "verdict"), [(0.2, "kept"), (0.1999, "repetition")])
def test_repeated_lines_at_their_limit(limit: float, verdict: str) -> None:
    """Two of ten lines repeat an earlier one; each line is 25 random numbers, so no other limit is near."""
    chance = random.Random(0)
    lines = [" ".join(str(chance.randrange(10**6, 10**7)) for _ in range(25)) for _ in range(8)]
    relaxed = {"top_ngram_shares": (1, 1, 1), "duplicate_ngram_shares": (1,) * 6, "duplicate_line_characters": 0.5}
    text = "\n".join([*lines, lines[0], lines[1]])
    assert only(text, duplicate_line_share=limit, gibberish_bits=30, **relaxed) == verdict


def test_gibberish_rests_where_there_is_little_to_compare_with() -> None:
    corpus = run([*village(50), Document("it", "xqzj wkvp qqzx jjkw vvpq zzxw qjzk")])
    assert "it" in kept(corpus)
    assert corpus.report.resting_rules == [
        "gibberish: 51 documents in scripts with spaces, wanted 200 to compare",
        "gibberish: 0 documents in scripts without spaces, wanted 200 to compare",
    ]


def test_an_empty_corpus_and_one_that_loses_everything_are_clear_errors() -> None:
    with pytest.raises(DataError, match="the corpus is empty: no document was read"):
        run([])
    with pytest.raises(DataError, match="no document is left of 2; dropped by length 2; relax these rules"):
        run([Document("a", "too short"), Document("b", "")])


def test_every_step_is_told_and_may_stop() -> None:
    steps: list[int] = []
    clean(village(50), DataRecipe(), on_step=lambda number, count: steps.append(number))
    assert steps == list(range(1, NUM_CLEANING_STEPS + 1))
