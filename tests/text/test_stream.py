from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sanbai.text.stream import TextStream
from sanbai.text.tokenizer import Tokenizer


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.push(id_) for id_ in ids), stream.finish()]


@given(text=st.text(max_size=40))
def test_the_pieces_join_to_the_text_and_no_character_is_cut(tokenizer: Tokenizer, text: str) -> None:
    parts = pieces(tokenizer, tokenizer.encode(text))
    assert "".join(parts) == text
    assert all("\ufffd" not in part for part in parts) or "\ufffd" in text
    assert parts[-1] == ""


@given(ids=st.lists(st.integers(0, 262), max_size=30))
def test_any_ids_give_what_decoding_gives(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


def test_a_character_of_several_tokens_comes_whole_with_its_last_one(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("龘")
    assert len(ids) == 4  # the space before every text, and three bytes
    assert pieces(tokenizer, ids) == ["", "", "", "龘", ""]


def test_an_unfinished_character_shows_at_the_end(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, tokenizer.encode("龘")[:3]) == ["", "", "", "\ufffd"]


def test_reserved_ids_are_silent(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("a"), tokenizer.reserved.end]
    assert pieces(tokenizer, ids) == ["", "a", "", ""]
