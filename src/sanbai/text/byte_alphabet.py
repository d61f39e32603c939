"""The printable stand-ins of the 256 bytes in a byte-level vocabulary (GPT-2's choice, so that others can read ours).

Bytes that print in Latin-1 stand for themselves; the other 68 take the characters from U+0100 on, in order.
"""

from __future__ import annotations

import functools


@functools.cache
def byte_of_character() -> dict[str, int]:
    """Return the byte that each of the 256 alphabet characters stands for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return alphabet


def bytes_of_token(token: str) -> bytes:
    """Return the bytes that a vocabulary entry stands for; KeyError if a character is none of the alphabet's."""
    alphabet = byte_of_character()
    return bytes(alphabet[character] for character in token)
