"""Byte-level BPE: any text in, the same text out, and no text gives a reserved id.

Training and encoding are Hugging Face `tokenizers`; the pattern that cuts text before merging is Qwen 2's (words,
single digits, punctuation, line breaks), so that numbers are read digit by digit.

A text is encoded with one space before it, and decoded without: a name that opens an answer is then the same token as
the name in the middle of the question, which a small model need not learn twice (SentencePiece does the same). The
space is the normaliser's in `tokenizer.json`; a tokenizer from elsewhere without it is used as it is.

**Reserved ids and text.** `tokenizers` finds the markers of special tokens inside text unless `encode_special_tokens`
is set on the object; leaving out "add special tokens" is not enough. It is set here, on training and on loading, so a
user who types `<|assistant|>` has typed thirteen ordinary characters. The setting is *not* part of `tokenizer.json`: an
exported folder read by another program will turn markers inside a message into reserved ids. Strip them there, or serve
from here.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from sanbai.foundation.errors import ArtifactError, DataError, UsageError
from sanbai.foundation.files import write_atomic, write_json_atomic
from sanbai.text.byte_alphabet import byte_of_character, bytes_of_token
from sanbai.text.chat_markup import CHAT_TEMPLATE
from sanbai.text.reserved import MARKERS, READING_MARKERS, ReadingIds, ReservedIds, sentinel_markers

#: Contractions; a word with at most one character before it; one digit; punctuation; line breaks; other white space.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

#: What stands before every text while it is encoded.
PREFIX = " "

#: The same, as `tokenizer.json` has it.
NORMALIZER = {"type": "Prepend", "prepend": PREFIX}

#: Every byte and every reserved token; a vocabulary cannot be smaller.
SMALLEST_VOCABULARY = 256 + len(MARKERS)


class Tokenizer:
    """Text to ids and back; built by `train_tokenizer` or `Tokenizer.load`, never changed after."""

    def __init__(self, engine: Engine, *, source: str = "tokenizer") -> None:
        """Take over a `tokenizers` object and close it to markers.

        Args:
            engine: byte-level BPE whose special tokens include every marker.
            source: named in messages.

        Raises:
            ArtifactError: a marker is missing or not special, or a merge spells one.
        """
        id_of = {token.content: id_ for id_, token in engine.get_added_tokens_decoder().items() if token.special}
        for marker in MARKERS.values():
            if marker not in id_of:
                raise ArtifactError(
                    f"{source}: {marker} is not among its special tokens; train a tokenizer with `sanbai tokenizer`, "
                    f"or add the {len(MARKERS)} markers to this one as special tokens"
                )
        description = json.loads(engine.to_str())
        if description["model"]["type"] != "BPE" or description["normalizer"] not in (None, NORMALIZER):
            raise ArtifactError(f"{source}: not plain byte-level BPE; a tokenizer that alters text cannot give it back")
        for left, right in description["model"]["merges"]:
            if left + right in id_of:
                raise ArtifactError(f"{source}: its merges spell {left + right}, so text could produce it; retrain it")
        engine.encode_special_tokens = True
        self._engine = engine
        self.prefix = PREFIX if description["normalizer"] else ""
        self.reserved = ReservedIds(**{name: id_of[marker] for name, marker in MARKERS.items()})
        self.reserved_ids = frozenset(id_of.values())
        self.sentinels = _sentinels(id_of)
        self._id_of_marker: Mapping[str, int] = id_of

    @property
    def reading(self) -> ReadingIds:
        """The reserved ids of masked models.

        Raises:
            UsageError: the tokenizer was not trained for one.
        """
        if missing := [marker for marker in READING_MARKERS.values() if marker not in self._id_of_marker]:
            raise UsageError(
                f"the tokenizer has no {missing[0]}; train one by a recipe whose pretrain.objective masks tokens"
            )
        return ReadingIds(**{name: self._id_of_marker[marker] for name, marker in READING_MARKERS.items()})

    @property
    def has_reading(self) -> bool:
        """Whether it has the reserved ids of masked models."""
        return all(marker in self._id_of_marker for marker in READING_MARKERS.values())

    @property
    def vocab_size(self) -> int:
        """Number of ids, reserved ones included; also the number of rows of an embedding."""
        return self._engine.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text. Never a reserved id, whatever the text says.

        Raises:
            DataError: the text holds half of a surrogate pair, which is no character and has no UTF-8.
        """
        try:
            return list(self._engine.encode(text, add_special_tokens=False).ids)
        except TypeError:
            raise _not_text(text) from None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text, on all threads that `tokenizers` may use.

        Raises:
            DataError: as `encode`.
        """
        try:
            return [encoding.ids for encoding in self._engine.encode_batch_fast(list(texts), add_special_tokens=False)]
        except TypeError:
            raise next(_not_text(text) for text in texts if not _is_text(text)) from None

    def decode(self, ids: Iterable[int], *, skip_reserved: bool = True) -> str:
        """Return the text of ids, each stretch between reserved ids without its prefix; bytes of no text become U+FFFD.

        Args:
            ids: each in `range(vocab_size)`.
            skip_reserved: leave reserved ids out; else they appear as their markers, for a person to read.
        """
        pieces: list[bytes] = []
        opens_text = True
        prefix = self.prefix.encode()
        for id_ in ids:
            is_reserved = id_ in self.reserved_ids
            if not (is_reserved and skip_reserved):
                piece = self._bytes_of_id[id_]
                pieces.append(piece.removeprefix(prefix) if opens_text else piece)
            opens_text = is_reserved
        return b"".join(pieces).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that an id stands for; of a reserved id, its marker's."""
        return self._bytes_of_id[token_id]

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, its Hugging Face companions and `chat_template.jinja` into a folder that exists.

        The module's docstring says what another program that reads the folder will do with markers inside text.
        """
        write_atomic(folder / "tokenizer.json", self._engine.to_str(pretty=False))
        names = {
            "bos_token": MARKERS["end_of_text"],
            "eos_token": MARKERS["end"],
            "pad_token": MARKERS["pad"],
            "additional_special_tokens": [MARKERS[role] for role in ("system", "user", "assistant", "tool")]
            + list(sentinel_markers(len(self.sentinels))),
        }
        if self.has_reading:
            names |= {f"{name}_token": marker for name, marker in READING_MARKERS.items()}
        write_json_atomic(folder / "special_tokens_map.json", names)
        configuration = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
        write_json_atomic(folder / "tokenizer_config.json", configuration)
        write_atomic(folder / "chat_template.jinja", CHAT_TEMPLATE)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json` from a folder.

        Raises:
            ArtifactError: absent, damaged, or not a tokenizer that can keep text and markers apart.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file; a tokenizer is a folder that holds tokenizer.json")
        try:
            engine = Engine.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - `tokenizers` raises plain Exception for a damaged file
            raise ArtifactError(f"{path}: not a tokenizer: {error}") from None
        return cls(engine, source=str(path))

    @functools.cached_property
    def _bytes_of_id(self) -> list[bytes]:
        """The bytes of every id: of a reserved id its marker's letters, else what its alphabet characters stand for."""
        table = [b""] * self.vocab_size
        added = {id_: token.content for id_, token in self._engine.get_added_tokens_decoder().items()}
        for token, id_ in self._engine.get_vocab(with_added_tokens=True).items():
            table[id_] = added[id_].encode() if id_ in added else bytes_of_token(token)
        return table


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, min_frequency: int = 2, extra_markers: Sequence[str] = ()
) -> Tokenizer:
    """Learn a byte-level BPE vocabulary. The same texts, in any order, give the same vocabulary.

    Args:
        texts: what to learn from; read once.
        vocab_size: number of ids wanted, `SMALLEST_VOCABULARY` or more; fewer come out when the texts are too few.
        min_frequency: a pair is merged only if it occurs this often.
        extra_markers: reserved tokens beside the usual ones; they get the last ids and count as part of the size, so
            that all ids before them are those of a smaller vocabulary without them.

    Raises:
        DataError: there is no text at all, or the size is below the smallest.
    """
    smallest = SMALLEST_VOCABULARY + len(extra_markers)
    if vocab_size < smallest:
        raise DataError(f"vocabulary of {vocab_size}: the 256 bytes and reserved tokens need {smallest}")
    engine = Engine(models.BPE())
    engine.normalizer = normalizers.Prepend(PREFIX)
    split_words = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    spell_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.pre_tokenizer = pre_tokenizers.Sequence([split_words, spell_bytes])
    engine.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(PREFIX, 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(extra_markers),
        min_frequency=min_frequency,
        special_tokens=[AddedToken(marker, special=True, normalized=False) for marker in MARKERS.values()],
        initial_alphabet=sorted(byte_of_character()),
        show_progress=False,
    )
    counted = _CountedTexts(texts)
    engine.train_from_iterator(counted, trainer=trainer)
    if counted.num_characters == 0:
        raise DataError("no text to train a tokenizer on; check the corpus")
    engine.add_special_tokens([AddedToken(marker, special=True, normalized=False) for marker in extra_markers])
    return Tokenizer(engine)


class _CountedTexts:
    """An iterable of texts that remembers how many characters went by."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = iter(texts)
        self.num_characters = 0

    def __iter__(self) -> _CountedTexts:
        return self

    def __next__(self) -> str:
        text = next(self._texts)
        self.num_characters += len(text)
        return text


def _sentinels(id_of: Mapping[str, int]) -> tuple[int, ...]:
    """Return the ids of sentinels 0, 1, ..., as many as there are without a gap."""
    return tuple(id_of[marker] for marker in itertools.takewhile(id_of.__contains__, sentinel_markers(len(id_of))))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_text(text: str) -> DataError:
    place = next(index for index, character in enumerate(text) if 0xD800 <= ord(character) <= 0xDFFF)
    return DataError(f"character {place} of a text is half of a surrogate pair, wanted Unicode; repair the text")
