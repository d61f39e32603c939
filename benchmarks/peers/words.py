"""A tokenizer for peers whose texts are the numbers of the tokens: both sides read the very same ids."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def number_tokenizer(vocab_size: int, *, pad: int, end: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer that reads "7 4095" as those ids.

    Args:
        vocab_size: the model's.
        pad: fills rows.
        end: ends an answer.
    """
    words = {str(word): word for word in range(max(vocab_size, pad + 1))}
    engine = Tokenizer(models.WordLevel(words, unk_token=str(pad)))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=engine, pad_token=str(pad), eos_token=str(end))


def as_text(tokens: Sequence[int]) -> str:
    """Return the text that gives these ids."""
    return " ".join(map(str, tokens))
