from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanbai.data.privacy import mask_email, mask_telephone


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to anna.miller@village.example today.", "Write to [e-mail] today."),
        ("<bert+mill@post.co.uk>, please", "<[e-mail]>, please"),
        ("邮箱anna@village.example。", "邮箱[e-mail]。"),
        ("a@b", "a@b"),
        ("meet @ noon", "meet @ noon"),
        ("x = y@z", "x = y@z"),
    ],
)
def test_addresses_are_masked_and_other_uses_of_the_sign_stay(text: str, expected: str) -> None:
    assert mask_email(text)[0] == expected
    assert mask_email(text)[1] == expected.count("[e-mail]")


@pytest.mark.parametrize(
    "number",
    [
        "555-0123",
        "555-010-0123",
        "030-123-4567",
        "+44 20 7946 0958",
        "+1-555-010-0199",
        "+86 138 0013 8000",
        "(555) 010-0199",
        "555.010.0199",
        "13800138000",
        "010-6552-9988",
        "0171-2345-678",
    ],
)
def test_telephone_numbers_are_masked(number: str) -> None:
    assert mask_telephone(f"Reach Anna at {number}.") == ("Reach Anna at [telephone].", 1)
    assert mask_telephone(number) == ("[telephone]", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My telephone number is 4417 2093.", "My telephone number is [telephone]."),
        ("Tel: 44172093", "Tel: [telephone]"),
        ("call 555 0199 now", "call [telephone] now"),
        ("电话:5550199", "电话:[telephone]"),
    ],
)
def test_a_number_after_a_word_that_announces_it_is_masked(text: str, expected: str) -> None:
    assert mask_telephone(text) == (expected, 1)


@pytest.mark.parametrize(
    "text",
    [
        "Sort 412 17 95 230 8 from small to large.",
        "12 + 30 = 42, 1000-250 = 750",
        "1914-1918 and 2023-01-05",
        "a city of A.D. 700-1000",
        "In 1999 there were 1250000 people.",
        "3.14159265",
        "isbn 9780306406157",
        "12345678901234567890",
        "Call Anna at 7 in the evening.",
        "scores 10-12, 21-19",
        "10:30-11:45",
    ],
)
def test_sums_lists_dates_and_ranges_stay(text: str) -> None:
    assert mask_telephone(text) == (text, 0)


@given(st.text(alphabet="0123456789-+() .ab@"))
def test_masking_is_done_in_one_pass(text: str) -> None:
    once = mask_email(text)[0]
    assert mask_email(once) == (once, 0)
