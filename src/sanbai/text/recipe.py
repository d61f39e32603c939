"""The recipe section `[tokenizer]`."""

from __future__ import annotations

from pydantic import Field

from sanbai.foundation.recipe import RecipeSection
from sanbai.text.tokenizer import SMALLEST_VOCABULARY


class TokenizerRecipe(RecipeSection):
    """How the vocabulary is learned."""

    vocab_size: int = Field(default=4096, ge=SMALLEST_VOCABULARY, le=262_144)
    """Number of token ids, the 256 bytes and the reserved tokens included."""
    min_frequency: int = Field(default=2, ge=1, le=1_000_000)
    """A pair of tokens is merged only if it occurs at least this often."""
    sample_bytes: int = Field(default=64_000_000, ge=1_000, le=10_000_000_000)
    """Learn from the corpus' first documents up to this many bytes of UTF-8; more changes little and takes longer."""
