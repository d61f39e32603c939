from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanbai.data.fingerprint import content_hash, fingerprint, is_spaceless


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Anna's  café — open!\n", "anna s cafe open"),
        ("7 + 8 = 15", "7 8 15"),
        ("snake_case", "snake case"),
        ("村里。A磨坊", "村 里 a 磨 坊"),
        ("ＦＵＬＬ", "full"),
        ("!?", ""),
    ],
)
def test_only_the_words_are_left(text: str, expected: str) -> None:
    assert fingerprint(text) == expected


@given(st.text())
def test_words_stand_between_single_spaces(text: str) -> None:
    words = fingerprint(text)
    assert words == " ".join(words.split())


@given(st.text(alphabet="ab C.!1 \n"))
def test_the_quick_way_for_plain_text_agrees_with_the_general_one(text: str) -> None:
    assert fingerprint(text) == fingerprint(text + " é").removesuffix("e").rstrip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Anna bakes", False),
        ("村里有磨坊。", True),
        ("安娜 met Bert and Carl", False),
        ("ひらがな", True),
        ("12 + 3", False),
    ],
)
def test_scripts_without_spaces_are_told_by_their_letters(text: str, expected: bool) -> None:
    assert is_spaceless(text) is expected


def test_the_hash_is_fixed() -> None:
    """Splits hang on it; the value is `printf Anna | b2sum --length=128`."""
    assert content_hash("Anna") == "36dee767195f1f5c942eff86465980eb"
