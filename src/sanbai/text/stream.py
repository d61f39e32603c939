"""Text as it grows: token ids in, pieces of text out, never half a character."""

from __future__ import annotations

import codecs

from sanbai.text.tokenizer import Tokenizer


class TextStream:
    """Decodes one response token by token; the pieces, joined, are `tokenizer.decode` of the ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._opens_text = True

    def push(self, token_id: int) -> str:
        """Return the text that this token completes: empty inside a character and for a reserved id."""
        opens_text, self._opens_text = self._opens_text, token_id in self._tokenizer.reserved_ids
        if self._opens_text:
            return ""
        piece = self._tokenizer.token_bytes(token_id)
        return self._decoder.decode(piece.removeprefix(self._tokenizer.prefix.encode()) if opens_text else piece)

    def finish(self) -> str:
        """Return what is left: nothing, or U+FFFD where the last character never came to its end."""
        return self._decoder.decode(b"", final=True)
