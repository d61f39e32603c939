"""Cleaning: from documents as they come to documents worth reading, split, with an account of what went and why.

    normalise -> boilerplate lines -> privacy -> length, symbols, insults, repetition, gibberish -> duplicates -> split

The order of the input never matters: documents are sorted by the hash of their normalised text before anything else.
The texts are held in memory; a corpus larger than that is cleaned in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from sanbai.data.boilerplate import find_boilerplate
from sanbai.data.documents import Document
from sanbai.data.fingerprint import content_hash, fingerprint, is_spaceless
from sanbai.data.normalise import normalise
from sanbai.data.privacy import mask_email, mask_telephone
from sanbai.data.recipe import DataRecipe
from sanbai.data.report import CleaningReport
from sanbai.data.rules import (
    Candidate,
    Verdict,
    find_near_duplicates,
    judge_alone,
    judge_copies,
    judge_gibberish,
    judge_near_duplicates,
    judge_repetition,
)
from sanbai.data.split import is_held_out
from sanbai.foundation.errors import DataError

#: Called after each step with its number from 1 and the number of documents still kept.
OnStep = Callable[[int, int], None]

#: Read and normalise; boilerplate and privacy; document by document; repetition; gibberish; duplicates; split.
NUM_CLEANING_STEPS = 7


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document that was left out, the rule it broke, and what was measured."""

    document: Document
    rule: str
    detail: str


@dataclass(frozen=True, slots=True)
class CleanedCorpus:
    """The kept documents in the order of their hashes, and what was left out."""

    train: list[Document]
    validation: list[Document]
    dropped: list[Dropped]
    tagged: list[str]
    report: CleaningReport


def clean(documents: Iterable[Document], recipe: DataRecipe, *, on_step: OnStep | None = None) -> CleanedCorpus:
    """Clean and split a corpus.

    Args:
        documents: read once, in any order.
        recipe: limits of every rule.
        on_step: told of each of `NUM_CLEANING_STEPS`; may raise to stop.

    Raises:
        DataError: there is no document, or none is left.
    """
    step = on_step or _say_nothing
    report = CleaningReport()
    dropped: list[Dropped] = []

    def keep(candidates: Sequence[Candidate], verdicts: Iterable[Verdict | None]) -> list[Candidate]:
        kept = []
        for candidate, verdict in zip(candidates, verdicts, strict=True):
            if verdict is None:
                kept.append(candidate)
                continue
            report.dropped[verdict.rule].add(candidate.document.text)
            dropped.append(Dropped(candidate.document, verdict.rule, verdict.detail))
        return kept

    ordered = _normalise_and_sort(documents, report)
    step(1, len(ordered))
    candidates = list(_strip_and_mask(ordered, recipe, report))
    step(2, len(candidates))
    tagged: list[str] = []
    candidates = keep(candidates, judge_alone(candidates, recipe, tagged))
    report.tagged_insults = len(tagged)
    step(3, len(candidates))
    candidates = keep(candidates, judge_repetition(candidates, recipe))
    step(4, len(candidates))
    candidates = keep(candidates, judge_gibberish(candidates, recipe, report.resting_rules))
    step(5, len(candidates))
    candidates = keep(candidates, judge_copies(candidates))
    clusters = find_near_duplicates(candidates, recipe)
    cluster_of = dict(zip((candidate.words for candidate in candidates), clusters, strict=True))
    candidates = keep(candidates, judge_near_duplicates(candidates, clusters))
    step(6, len(candidates))

    train: list[Document] = []
    validation: list[Document] = []
    for candidate in candidates:
        held_out = is_held_out(cluster_of[candidate.words], recipe.validation_share)
        (validation if held_out else train).append(candidate.document)
        (report.validation if held_out else report.train).add(candidate.document.text)
    if not train:
        raise DataError(f"no document is left of {report.read.documents}; {_explain(report)}")
    step(7, len(candidates))
    return CleanedCorpus(train, validation, dropped, tagged, report)


def _normalise_and_sort(documents: Iterable[Document], report: CleaningReport) -> list[tuple[str, Document]]:
    """Return (hash, normalised document) in an order that depends on the documents alone."""
    keyed = []
    for document in documents:
        report.read.add(document.text)
        text = normalise(document.text)
        keyed.append((content_hash(text), document if text == document.text else replace(document, text=text)))
    if not keyed:
        raise DataError("the corpus is empty: no document was read; check the paths in the recipe's data section")
    keyed.sort(key=lambda pair: (pair[0], pair[1].id, pair[1].source, pair[1].licence, pair[1].language))
    return keyed


def _strip_and_mask(
    keyed: Sequence[tuple[str, Document]], recipe: DataRecipe, report: CleaningReport
) -> Iterator[Candidate]:
    different = (next(copies)[1].text for _, copies in groupby(keyed, key=lambda pair: pair[0]))
    boilerplate = find_boilerplate(different, recipe)
    for _, document in keyed:
        text, num_lines = boilerplate.strip(document.text)
        report.boilerplate_lines += num_lines
        if recipe.mask_email:
            text, count = mask_email(text)
            report.masked_emails += count
        if recipe.mask_telephone:
            text, count = mask_telephone(text)
            report.masked_telephones += count
        changed = document if text == document.text else replace(document, text=text)
        yield Candidate(changed, fingerprint(text), is_spaceless(text))


def _explain(report: CleaningReport) -> str:
    counts = ", ".join(f"{rule} {tally.documents}" for rule, tally in report.dropped.items() if tally.documents)
    return f"dropped by {counts}; relax these rules in the data section" if counts else "all were held out"


def _say_nothing(number: int, kept: int) -> None:
    """The default of `on_step`."""
