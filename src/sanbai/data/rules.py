"""The rules that drop documents: each looks at all candidates and says of every one what it breaks, or nothing.

A rule neither changes a document nor depends on the order in which they come.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sanbai.data.deduplication import find_clusters
from sanbai.data.documents import Document
from sanbai.data.fingerprint import content_hash, fingerprint
from sanbai.data.gibberish import surprises
from sanbai.data.recipe import DataRecipe
from sanbai.data.repetition import (
    duplicate_line_shares,
    duplicate_paragraph_shares,
    duplicate_run_shares,
    top_run_shares,
)
from sanbai.data.words import batch_texts, hash_words

#: A text of fewer words cannot be said to repeat itself.
NUM_WORDS_THAT_CAN_REPEAT = 10


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document on its way, with what several rules look at."""

    document: Document
    words: str
    """Its fingerprint."""
    spaceless: bool
    """Whether its script is written without spaces."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The rule that a document breaks, and what was measured."""

    rule: str
    detail: str


def judge_alone(candidates: Sequence[Candidate], recipe: DataRecipe, tagged: list[str]) -> Iterator[Verdict | None]:
    """Length, symbols and insults: what one document shows by itself; names of those with insults go to `tagged`."""
    insults = _word_pattern(recipe.insults)
    for candidate in candidates:
        num_words = candidate.words.count(" ") + 1 if candidate.words else 0
        if not recipe.min_words <= num_words <= recipe.max_words:
            yield Verdict("length", f"words {num_words}, wanted {recipe.min_words} to {recipe.max_words}")
            continue
        share = symbol_share(candidate.document.text)
        if share > recipe.max_symbol_share:
            yield Verdict(
                "symbols", f"share {share:.3f} of visible characters, wanted at most {recipe.max_symbol_share}"
            )
            continue
        if insults is not None and (found := insults.findall(candidate.words)):
            tagged.append(candidate.document.id)
            share = sum(insult.count(" ") + 1 for insult in found) / num_words
            if share > recipe.max_insult_share:
                yield Verdict("insult", f"share {share:.3f} of words, wanted at most {recipe.max_insult_share}")
                continue
        yield None


def symbol_share(text: str) -> float:
    """Return the share of visible characters that are neither letters nor digits; 0 of a text without any."""
    visible = "".join(text.split())
    if not visible:
        return 0.0
    return 1 - sum(map(str.isalnum, visible)) / len(visible)


def _word_pattern(entries: Sequence[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds any of the entries, as whole words, in a fingerprint."""
    alternatives = sorted(
        {re.escape(words) for entry in entries if (words := fingerprint(entry))}, key=len, reverse=True
    )
    return re.compile(rf"(?<!\S)(?:{'|'.join(alternatives)})(?!\S)") if alternatives else None


def judge_repetition(candidates: Sequence[Candidate], recipe: DataRecipe) -> list[Verdict | None]:
    """Documents that say the same again and again."""
    verdicts: list[Verdict | None] = [None] * len(candidates)
    for first, batch in batch_texts([candidate.words for candidate in candidates]):
        words = hash_words(batch)
        num_words = np.diff(words.bounds)
        top_pairs = top_run_shares(words, 2)
        measures = [
            (f"top run of {length} words", top_run_shares(words, length), limit)
            for length, limit in enumerate(recipe.top_ngram_shares, start=2)
        ] + [
            (f"repeated runs of {length} words", duplicate_run_shares(words, length), limit)
            for length, limit in enumerate(recipe.duplicate_ngram_shares, start=5)
        ]
        for offset in np.flatnonzero(num_words >= NUM_WORDS_THAT_CAN_REPEAT).tolist():
            if num_words[offset] < recipe.repetition_min_words:
                broken = _over_limit([("top run of 2 words", float(top_pairs[offset]), recipe.short_repetition_share)])
            else:
                measured = [(name, float(shares[offset]), limit) for name, shares, limit in measures]
                broken = _over_limit([*measured, *_line_measures(candidates[first + offset].document.text, recipe)])
            if broken:
                verdicts[first + offset] = Verdict("repetition", broken)
    return verdicts


def _over_limit(measures: Sequence[tuple[str, float, float]]) -> str:
    """Return what the first share above its limit is, or nothing."""
    for name, share, limit in measures:
        if share > limit:
            return f"{name}: share {share:.3f}, wanted at most {limit}"
    return ""


def _line_measures(text: str, recipe: DataRecipe) -> list[tuple[str, float, float]]:
    lines, line_characters = duplicate_line_shares(text)
    paragraphs, paragraph_characters = duplicate_paragraph_shares(text)
    return [
        ("repeated lines", lines, recipe.duplicate_line_share),
        ("characters in repeated lines", line_characters, recipe.duplicate_line_characters),
        ("repeated paragraphs", paragraphs, recipe.duplicate_paragraph_share),
        ("characters in repeated paragraphs", paragraph_characters, recipe.duplicate_paragraph_characters),
    ]


def judge_gibberish(
    candidates: Sequence[Candidate], recipe: DataRecipe, resting_rules: list[str]
) -> list[Verdict | None]:
    """Documents whose characters surprise; where a script has too few documents, that goes to `resting_rules`."""
    verdicts: list[Verdict | None] = [None] * len(candidates)
    for spaceless in (False, True):
        members = [index for index, candidate in enumerate(candidates) if candidate.spaceless is spaceless]
        if len(members) < recipe.gibberish_min_documents:
            script = "without" if spaceless else "with"
            resting_rules.append(
                f"gibberish: {len(members)} documents in scripts {script} spaces, "
                f"wanted {recipe.gibberish_min_documents} to compare"
            )
            continue
        bits = surprises([candidates[index].document.text for index in members])
        floor = recipe.gibberish_bits_spaceless if spaceless else recipe.gibberish_bits
        limit = max(floor, float(np.median(bits)) * recipe.gibberish_ratio)
        for index, value in zip(members, bits.tolist(), strict=True):
            if value > limit:
                verdicts[index] = Verdict("gibberish", f"{value:.2f} bits a character, wanted at most {limit:.2f}")
    return verdicts


def _rank(candidate: Candidate) -> tuple[int, str, str]:
    """Of several copies the one that sorts first is kept: the longest, then by content and name."""
    return -len(candidate.document.text), candidate.document.text, candidate.document.id


def judge_copies(candidates: Sequence[Candidate]) -> Iterator[Verdict | None]:
    """Documents of the same words: one is kept."""
    best: dict[str, Candidate] = {}
    for candidate in candidates:
        other = best.get(candidate.words)
        if other is None or _rank(candidate) < _rank(other):
            best[candidate.words] = candidate
    for candidate in candidates:
        kept = best[candidate.words]
        yield None if kept is candidate else Verdict("duplicate", f"of {kept.document.id}")


def find_near_duplicates(candidates: Sequence[Candidate], recipe: DataRecipe) -> list[str]:
    """Return each document's cluster, named by the least hash of its members' words."""
    hashes = [content_hash(candidate.words) for candidate in candidates]
    order = sorted(range(len(candidates)), key=hashes.__getitem__)
    roots = find_clusters(
        [candidates[index].words for index in order],
        shingle_words=recipe.shingle_words,
        num_buckets=recipe.num_buckets,
        hashes_per_bucket=recipe.hashes_per_bucket,
        threshold=recipe.near_duplicate_jaccard,
    )
    clusters = [""] * len(candidates)
    for index, root in zip(order, roots.tolist(), strict=True):
        clusters[index] = hashes[order[root]]
    return clusters


def judge_near_duplicates(candidates: Sequence[Candidate], clusters: Sequence[str]) -> Iterator[Verdict | None]:
    """Documents of one cluster: one is kept."""
    best: dict[str, Candidate] = {}
    for candidate, cluster in zip(candidates, clusters, strict=True):
        if cluster not in best or _rank(candidate) < _rank(best[cluster]):
            best[cluster] = candidate
    for candidate, cluster in zip(candidates, clusters, strict=True):
        kept = best[cluster]
        yield None if kept is candidate else Verdict("near_duplicate", f"of {kept.document.id}")
