"""The recipe section `[data]`: what counts as a document worth reading."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sanbai.foundation.recipe import RecipeSection

Share = Annotated[float, Field(ge=0.0, le=1.0)]

#: Phrases of lines that speak of the page, not of anything: C4's (Raffel et al. 2020, arXiv:1910.10683, section 2.2),
#: and the buttons and footers that every crawl knows.
BOILERPLATE_PHRASES = (
    "accept our cookies",
    "all rights reserved",
    "click here",
    "cookie policy",
    "leave a comment",
    "log in or sign up",
    "lorem ipsum",
    "privacy policy",
    "share this page",
    "skip to content",
    "subscribe to our newsletter",
    "terms of use",
    "use cookies",
    "use of cookies",
    "uses cookies",
    "版权所有",
    "点击这里",
)


class DataRecipe(RecipeSection):
    """How a corpus is cleaned and split. Words are characters where a script writes none (Chinese, Japanese, Thai)."""

    min_words: int = Field(default=5, ge=1, le=10_000)
    """Shorter documents are dropped."""
    max_words: int = Field(default=200_000, ge=10, le=100_000_000)
    """Longer documents are dropped."""
    max_symbol_share: Share = 0.55
    """Dropped when more of the visible characters are neither letters nor digits (sums of small numbers reach 0.47)."""

    boilerplate_phrases: tuple[str, ...] = BOILERPLATE_PHRASES
    """Lines with one of these, in any case, are removed, and so are "page 1 of 2" and rows of links between bars, if
    they have at most `boilerplate_max_words`."""
    boilerplate_max_words: int = Field(default=30, ge=1, le=10_000)
    """A longer line is no boilerplate, whatever phrase it holds."""
    remove_recurring_lines: bool = False
    """Also remove lines that come back in many documents: right for pages of one site, wrong for exercises and forms,
    whose questions come back too."""
    boilerplate_min_words: int = Field(default=4, ge=1, le=10_000)
    """A shorter line is never removed for coming back in many documents."""
    boilerplate_min_documents: int = Field(default=20, ge=2, le=1_000_000)
    """A line that comes back is removed only if this many different documents hold it ..."""
    boilerplate_share: Share = 0.001
    """... and this share of all documents."""

    repetition_min_words: int = Field(default=200, ge=1, le=10_000)
    """Shorter documents are tried only for the gravest repetition: a list or a refrain is no fault. (Gopher, whose
    limits follow, saw web pages of 50 words and more; lists, sums and command references break them without fault.)"""
    short_repetition_share: Share = 0.75
    """Shorter documents of ten words or more are dropped when one pair of words takes up more of their letters."""
    duplicate_line_share: Share = 0.50
    """Largest share of lines that repeat an earlier one (Gopher, Rae et al. 2021, arXiv:2112.11446, table A1: 0.30,
    which plays break by the names of their speakers)."""
    duplicate_paragraph_share: Share = 0.30
    """Largest share of paragraphs that repeat an earlier one (Gopher)."""
    duplicate_line_characters: Share = 0.20
    """Largest share of characters in such lines (Gopher)."""
    duplicate_paragraph_characters: Share = 0.20
    """Largest share of characters in such paragraphs (Gopher)."""
    top_ngram_shares: tuple[Share, Share, Share] = (0.20, 0.18, 0.16)
    """Largest share of letters in the one run of 2, 3 and 4 words that takes up most (Gopher)."""
    duplicate_ngram_shares: tuple[Share, Share, Share, Share, Share, Share] = (0.30, 0.28, 0.26, 0.24, 0.22, 0.20)
    """Largest share of letters in runs of 5, 6, ..., 10 words that repeat an earlier run. Twice Gopher's, which are for
    web pages: every country of a factbook breaks those, by the names of its fields."""
    gibberish_ratio: float = Field(default=1.5, ge=1.0, le=100.0)
    """Dropped when its characters surprise this many times as much as the median document's of its script ..."""
    gibberish_bits: float = Field(default=5.0, ge=0.0, le=30.0)
    """... and by more bits a character than this (random letters: 6; English: 3 to 5; a narrow corpus: 2) ..."""
    gibberish_bits_spaceless: float = Field(default=12.0, ge=0.0, le=30.0)
    """... or than this in a script without spaces (random Chinese characters: 15 to 18; classical verse: 6 to 12)."""
    gibberish_min_documents: int = Field(default=200, ge=10, le=1_000_000)
    """With fewer documents of a script there is nothing to compare with, and the rule rests."""

    mask_email: bool = True
    """Put a mark in the place of e-mail addresses."""
    mask_telephone: bool = True
    """Put a mark in the place of telephone numbers."""

    insults: tuple[str, ...] = ()
    """Words whose documents are tagged in the report."""
    max_insult_share: Share = 1.0
    """Documents are dropped when more of their words are insults; 1 drops none."""

    shingle_words: int = Field(default=5, ge=1, le=50)
    """Near-duplicates are compared by their runs of this many words."""
    num_buckets: int = Field(default=14, ge=1, le=200)
    """Buckets of the MinHash signature; two documents that agree in one are compared exactly."""
    hashes_per_bucket: int = Field(default=8, ge=1, le=50)
    """Hashes in each bucket; a pair of Jaccard similarity s meets with probability 1 - (1 - s^hashes)^buckets."""
    near_duplicate_jaccard: float = Field(default=0.8, ge=0.05, le=1.0)
    """Documents that share this part of their runs are near-duplicates; one of a cluster is kept."""

    validation_share: float = Field(default=0.02, gt=0.0, lt=0.9)
    """Share of the duplicate clusters that is held out."""
    examples_per_rule: int = Field(default=100, ge=0, le=1_000_000)
    """Dropped documents kept aside with their text, a rule; of the others only the name is kept."""
