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

**Tokenizers from elsewhere** (BPE, WordPiece, Unigram) are used as they are, with their own special tokens and, if it
can be cut into turns (`foreign_template.py`), their own chat template; nothing is added to their vocabulary. Some of
their models spell a special token from ordinary text (T5's `</s>`); such an id is replaced by those of its characters.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from sanbai.foundation.errors import ArtifactError, DataError, UsageError
from sanbai.foundation.files import write_atomic, write_json_atomic
from sanbai.text.byte_alphabet import byte_of_character
from sanbai.text.chat_markup import CHAT_TEMPLATE, ROLES
from sanbai.text.companions import (
    CONFIGURATION,
    SPECIAL_TOKENS,
    TEMPLATE,
    Companions,
    first_special,
    turns_template,
)
from sanbai.text.foreign_template import Pieces, Template, cut
from sanbai.text.reserved import (
    MARKERS,
    RATING_MARKERS,
    READING_MARKERS,
    RatingIds,
    ReadingIds,
    ReservedIds,
    sentinel_markers,
)
from sanbai.text.spelling import Spelling
from sanbai.text.turns import Turns

#: Contractions; a word with at most one character before it; one digit; punctuation; line breaks; other white space.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

#: What stands before every text while it is encoded.
PREFIX = " "

#: Every byte and every reserved token; a vocabulary cannot be smaller.
SMALLEST_VOCABULARY = 256 + len(MARKERS)


class Tokenizer:
    """Text to ids and back; built by `train_tokenizer` or `Tokenizer.load`, never changed after."""

    def __init__(self, engine: Engine, *, source: str = "tokenizer", companions: Companions | None = None) -> None:
        """Take over a `tokenizers` object and close it to markers.

        Args:
            engine: ours, whose special tokens include every marker, or another's.
            source: named in messages.
            companions: of another's, what its folder says of its special tokens.

        Raises:
            ArtifactError: another's, and no special token of it ends a text.
        """
        id_of = {token.content: id_ for id_, token in engine.get_added_tokens_decoder().items() if token.special}
        engine.no_truncation()
        engine.no_padding()
        description = json.loads(engine.to_str())
        engine.encode_special_tokens = True
        self._engine = engine
        self._spelling = Spelling(description, engine)
        # What text may give is no marker: the unknown token stands for text that the vocabulary lacks.
        self.reserved_ids = frozenset(id_of.values()) - {self._spelling.unknown_id}
        self.prefix = self._spelling.prefix
        self.sentinels = _sentinels(id_of)
        self._id_of_marker: Mapping[str, int] = id_of
        self._companions = companions or Companions()
        self.knows_turns = True
        """Whether the folder had a chat template, so that its model may have seen conversations in it."""
        if id_of.keys() >= set(MARKERS.values()):
            ids = {name: id_of[marker] for name, marker in MARKERS.items()}
            self.turns = Turns.of_markers(ids, ROLES)
            self.reserved = ReservedIds(ids["end_of_text"], ids["pad"], ids["end"])
            self._template = CHAT_TEMPLATE
            self._is_ours = True
        else:
            self._is_ours = False
            self._adopt(id_of, source)

    def _adopt(self, id_of: Mapping[str, int], source: str) -> None:
        """Find the reserved ids and the turns of a tokenizer from elsewhere."""
        tokens = self._companions.tokens
        use = tokens.get
        begin = first_special((use("bos_token"), "<|endoftext|>", use("eos_token"), use("sep_token")), id_of)
        if begin is None:
            raise ArtifactError(
                f"{source}: no special token of it ends a text; wanted a bos_token, eos_token or sep_token in "
                f"{CONFIGURATION} that tokenizer.json has as a special token"
            )
        end = first_special((use("eos_token"), begin), id_of) or begin
        self._template = self._companions.template
        pieces = self._cut_template(self._template, tokens, list(id_of))
        self.knows_turns = pieces is not None
        if pieces is None:
            self._template = turns_template(begin, end)
            pieces = cut(Template(self._template, tokens))
            assert pieces is not None
        self.turns = Turns(
            opening=self._encode_piece(pieces.opening),
            system_opening=self._encode_piece(pieces.system_opening),
            before={role: self._encode_piece(text) for role, text in pieces.before.items()},
            after={role: self._encode_piece(text) for role, text in pieces.after.items()},
            answer=self._encode_piece(pieces.answer),
        )
        ends = [id_ for id_ in self.turns.after["assistant"] if id_ in self.reserved_ids] or [id_of[end]]
        named = {id_of[end], *self._companions.end_ids} & self.reserved_ids
        pad = first_special((use("pad_token"), end), id_of) or end
        self.reserved = ReservedIds(id_of[begin], id_of[pad], ends[0], frozenset(named))

    def _cut_template(self, source: str, tokens: Mapping[str, str], special: Sequence[str]) -> Pieces | None:
        """Return a template's pieces; None if there is none, it is open to forgery, or its pieces do not add up."""
        if not source:
            return None
        try:
            template = Template(source, tokens)
        except ValueError:
            return None
        pieces = cut(template)
        if pieces is None or not pieces.are_closed(special):
            return None
        messages = [{"role": role, "content": f"Say {role}, 12."} for role in ("user", "assistant", "user")]
        for talk in (messages, messages[:1]):
            ids = [
                id_
                for text, is_content in pieces.join(talk)
                for id_ in (self.encode(text) if is_content else self._encode_piece(text))
            ]
            if ids != list(self._encode_piece(template.render(talk, wait=True))):
                return None
        return pieces

    def _encode_piece(self, text: str) -> tuple[int, ...]:
        """Return the ids of a part of a template: special tokens are found in it."""
        self._engine.encode_special_tokens = False
        try:
            return tuple(self._engine.encode(text, add_special_tokens=False).ids)
        finally:
            self._engine.encode_special_tokens = True

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
    def rating(self) -> RatingIds:
        """The reserved ids of models that also judge.

        Raises:
            UsageError: the tokenizer has none.
        """
        if not self.can_rate:
            raise UsageError(
                f"the tokenizer has no {RATING_MARKERS['safe']}; `sanbai train self-judge` makes a model that judges"
            )
        return RatingIds(**{name: self._id_of_marker[marker] for name, marker in RATING_MARKERS.items()})

    @property
    def can_rate(self) -> bool:
        """Whether it has the reserved ids of models that also judge."""
        return all(marker in self._id_of_marker for marker in RATING_MARKERS.values())

    def with_markers(self, markers: Sequence[str]) -> Tokenizer:
        """Return a tokenizer with further reserved tokens behind all ids; every text keeps its ids, this one its all.

        Args:
            markers: those that are there already are left as they are.
        """
        engine = Engine.from_str(self._engine.to_str())
        engine.add_special_tokens([AddedToken(marker, special=True, normalized=False) for marker in markers])
        return Tokenizer(engine, companions=self._companions)

    @property
    def vocab_size(self) -> int:
        """Number of ids, reserved ones included; an embedding has this many rows, or more that no text uses."""
        return self._spelling.num_ids

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text. Never a reserved id, whatever the text says.

        Raises:
            DataError: the text holds half of a surrogate pair, which is no character and has no UTF-8.
        """
        try:
            return self._without_reserved(self._engine.encode(text, add_special_tokens=False).ids)
        except TypeError:
            raise _not_text(text) from None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text, on all threads that `tokenizers` may use.

        Raises:
            DataError: as `encode`.
        """
        try:
            encodings = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            raise next(_not_text(text) for text in texts if not _is_text(text)) from None
        return [self._without_reserved(encoding.ids) for encoding in encodings]

    def _without_reserved(self, ids: list[int]) -> list[int]:
        """Replace reserved ids that a vocabulary's own model has spelled from text."""
        if self.reserved_ids.isdisjoint(ids):
            return ids
        return [part for id_ in ids for part in (self._spelling.apart(id_) if id_ in self.reserved_ids else (id_,))]

    def decode(self, ids: Iterable[int], *, skip_reserved: bool = True) -> str:
        """Return the text of ids, each stretch between reserved ids without its prefix; bytes of no text become U+FFFD.

        Args:
            ids: a model's; those of `vocab_size` and beyond stand for nothing.
            skip_reserved: leave reserved ids out; else they appear as their markers, for a person to read.
        """
        pieces: list[bytes] = []
        opens_text = True
        prefix = self.prefix.encode()
        for id_ in ids:
            is_reserved = id_ in self.reserved_ids
            if not (is_reserved and skip_reserved):
                piece = self.token_bytes(id_)
                pieces.append(piece.removeprefix(prefix) if opens_text else piece)
            opens_text = is_reserved
        return b"".join(pieces).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that an id stands for: of a reserved id its marker's, of one beyond the vocabulary none."""
        return self._spelling.bytes_of(token_id)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, its Hugging Face companions and `chat_template.jinja` into a folder that exists.

        The module's docstring says what another program that reads the folder will do with markers inside text.
        """
        write_atomic(folder / "tokenizer.json", self._engine.to_str(pretty=False))
        write_atomic(folder / TEMPLATE, self._template)
        if not self._is_ours:
            self._save_companions(folder)
            return
        names = {
            "bos_token": MARKERS["end_of_text"],
            "eos_token": MARKERS["end"],
            "pad_token": MARKERS["pad"],
            "additional_special_tokens": [MARKERS[role] for role in ("system", "user", "assistant", "tool")]
            + list(sentinel_markers(len(self.sentinels)))
            + [marker for marker in RATING_MARKERS.values() if marker in self._id_of_marker],
        }
        if self.has_reading:
            names |= {f"{name}_token": marker for name, marker in READING_MARKERS.items()}
        write_json_atomic(folder / SPECIAL_TOKENS, names)
        configuration = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
        write_json_atomic(folder / CONFIGURATION, configuration)

    def _save_companions(self, folder: Path) -> None:
        if self._companions.special_tokens:
            write_json_atomic(folder / SPECIAL_TOKENS, self._companions.special_tokens)
        configuration = self._companions.configuration or {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
        }
        write_json_atomic(folder / CONFIGURATION, configuration)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json` from a folder, and the companions of one that is not ours.

        Raises:
            ArtifactError: absent, damaged, or without a special token that ends a text.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file; a tokenizer is a folder that holds tokenizer.json")
        try:
            engine = Engine.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - `tokenizers` raises plain Exception for a damaged file
            raise ArtifactError(f"{path}: not a tokenizer: {error}") from None
        return cls(engine, source=str(path), companions=Companions.read(folder))


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
