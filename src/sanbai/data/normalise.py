"""One way of writing: the same text always becomes the same characters, and nothing invisible stays."""

from __future__ import annotations

import re
import unicodedata

#: Controls but tab and newline; soft hyphen, zero-width space, word joiner, byte-order mark; direction overrides. The
#: joiners U+200C and U+200D stay: emoji, Persian and Indian scripts are spelled with them.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_LINE_BREAKS = re.compile("\r\n?|[\u0085\u2028\u2029\x0b\x0c]")
_SPACE_AT_LINE_END = re.compile("[ \t\u00a0\u3000]+$", re.MULTILINE)
_MANY_BLANK_LINES = re.compile("\n{4,}")


def normalise(text: str) -> str:
    """Return the text in NFC, without invisible characters, spaces at line ends, or more than two blank lines in a row.

    Applying it twice changes nothing more.
    """
    text = _LINE_BREAKS.sub("\n", text)
    text = _INVISIBLE.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = _SPACE_AT_LINE_END.sub("", text)
    return _MANY_BLANK_LINES.sub("\n\n\n", text).strip("\n")
