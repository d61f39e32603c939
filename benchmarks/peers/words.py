"""A tokenizer for peers whose texts are the numbers of the tokens: both sides read the very same ids."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def number_tokenizer(vocab_size: int, *, end: int | None = None) -> PreTrainedTokenizerFast:
    """Return a tokenizer that reads "7 4095" as those ids.

    Args:
        vocab_size: the pad is the first id beyond it, which nothing draws: trl knows padding by its id alone.
        end: what ends an answer; by default the pad, which nothing draws either.
    """
    words = {str(word): word for word in range(vocab_size)} | {"pad": vocab_size}
    engine = Tokenizer(models.WordLevel(words, unk_token="pad"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=engine, pad_token="pad", eos_token="pad" if end is None else str(end)
    )


def as_text(tokens: Sequence[int]) -> str:
    """Return the text that gives these ids."""
    return " ".join(map(str, tokens))
