"""What two copies of a text have in common however they are written: its words in lower case, and nothing else."""

from __future__ import annotations

import hashlib
import re
import unicodedata

#: Scripts written without spaces: kana, Han, Thai, Lao, Khmer, Burmese. Their characters count as words.
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_SPACELESS_CHARACTER = re.compile(f"[{_SPACELESS}]")
_BESIDE_SPACELESS = re.compile(f"(?=[{_SPACELESS}])|(?<=[{_SPACELESS}])")
#: Accents of Latin, Greek and Cyrillic letters; the vowel signs of other scripts are no ornaments and stay.
_ACCENT = re.compile("[\u0300-\u036f]")
_NOT_WORD = re.compile(r"[^\w\s]|_")
_ASCII_WORDS = {code: " " for code in range(128) if not chr(code).isalnum()}
_ASCII_TABLE = str.maketrans(_ASCII_WORDS)


def fingerprint(text: str) -> str:
    """Return the words of a text joined by one space: lower case, no accents, no punctuation.

    Characters of scripts without spaces are words. Digits stay: two sums differ by nothing else.
    """
    text = text.lower()
    if text.isascii():
        return " ".join(text.translate(_ASCII_TABLE).split())
    plain = _ACCENT.sub("", unicodedata.normalize("NFKD", text))
    spaced = _BESIDE_SPACELESS.sub(" ", _NOT_WORD.sub(" ", plain))
    return " ".join(spaced.split())


def is_spaceless(text: str) -> bool:
    """Whether most of a text's letters belong to a script written without spaces."""
    if text.isascii():
        return False
    letters = sum(map(str.isalpha, text))
    return 2 * len(_SPACELESS_CHARACTER.findall(text)) > letters


def content_hash(text: str) -> str:
    """Return 128 bits of BLAKE2b over a text, in hexadecimal."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
