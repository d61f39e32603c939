"""What each id of a vocabulary spells, as bytes, whatever kind of model `tokenizers` holds.

Byte-level vocabularies (GPT-2, ours) write bytes as printable characters; SentencePiece's write a space as U+2581 and
rare bytes as `<0x0A>`; WordPiece marks what continues a word; GPT-1 marks what ends one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import Tokenizer as Engine

from sanbai.text.byte_alphabet import bytes_of_token

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_UNKNOWN = "\ufffd".encode()


class Spelling:
    """The bytes of every id."""

    def __init__(self, description: Mapping[str, Any], engine: Engine) -> None:
        """Read the vocabulary.

        Args:
            description: the content of `tokenizer.json`.
            engine: the same, ready to encode.
        """
        self._engine = engine
        model = description["model"]
        vocabulary = engine.get_vocab(with_added_tokens=True)
        self.num_ids = max(vocabulary.values(), default=-1) + 1
        self.unknown_id = _unknown_id(model, vocabulary)
        self._added = {id_: token.content for id_, token in engine.get_added_tokens_decoder().items()}
        spell = _rule(description)
        self._bytes = [b""] * self.num_ids
        for token, id_ in vocabulary.items():
            self._bytes[id_] = self._added[id_].encode() if id_ in self._added else spell(token)
        if self.unknown_id is not None:
            self._bytes[self.unknown_id] = _UNKNOWN
        first = engine.encode("x", add_special_tokens=False).ids
        opens = b"".join(map(self.bytes_of, first))
        self.prefix = " " if model["type"] in {"WordPiece", "WordLevel"} or opens.startswith(b" ") else ""
        """The space that encoding puts before every text, and decoding takes away; else nothing."""

    def bytes_of(self, token_id: int) -> bytes:
        """Return an id's bytes, none of one that the vocabulary does not have."""
        return self._bytes[token_id] if token_id < self.num_ids else b""

    def apart(self, token_id: int) -> list[int]:
        """Return the ids of a special token's characters, one by one; the unknown one, or none, where there is none."""
        ids = []
        for character in self._added[token_id]:
            pieces = [character] if self._engine.token_to_id(character) is not None else []
            pieces = pieces or [f"<0x{byte:02X}>" for byte in character.encode()]
            found = [self._engine.token_to_id(piece) for piece in pieces]
            ids += [self.unknown_id if id_ is None else id_ for id_ in found]
        return [id_ for id_ in ids if id_ is not None]


def _rule(description: Mapping[str, Any]) -> Callable[[str], bytes]:
    """Return what a piece of the vocabulary spells."""
    model = description["model"]
    parts = [description["normalizer"], description["pre_tokenizer"], description["decoder"]]
    kinds = {kind for part in parts if part for kind in _kinds(part)}
    if "ByteLevel" in kinds:
        return _byte_level
    if model["type"] in {"WordPiece", "WordLevel"}:
        mark = model.get("continuing_subword_prefix") or ""
        return lambda token: token[len(mark) :].encode() if mark and token.startswith(mark) else f" {token}".encode()
    if suffix := model.get("end_of_word_suffix") or "":
        return lambda token: (token.removesuffix(suffix) + " " * token.endswith(suffix)).encode()
    return _sentence_piece


def _kinds(part: Mapping[str, Any]) -> set[str]:
    inside = [*part.get("normalizers", ()), *part.get("pretokenizers", ()), *part.get("decoders", ())]
    return {part["type"]}.union(*map(_kinds, inside))


def _byte_level(token: str) -> bytes:
    try:
        return bytes_of_token(token)
    except KeyError:
        return token.encode()


def _sentence_piece(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()


def _unknown_id(model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> int | None:
    if model["type"] == "Unigram":
        unknown = model.get("unk_id")
        return None if unknown is None else int(unknown)
    return vocabulary.get(model.get("unk_token") or "")
