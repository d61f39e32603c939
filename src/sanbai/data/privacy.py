"""E-mail addresses and telephone numbers, masked in place.

A number is masked when it is *written* as a telephone number: with a leading +, an area code in brackets, groups joined
by hyphens, or after a word such as "telephone". Plain lists of numbers, sums, dates, years and ranges stay.
"""

from __future__ import annotations

import re

EMAIL_MARK = "[e-mail]"
TELEPHONE_MARK = "[telephone]"

_EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9](?:[\w.+%-]{0,62}[A-Za-z0-9_])?@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*\.[A-Za-z]{2,24}(?![\w-])",
    re.ASCII,
)
_GROUPS = r"\d{1,5}(?:[ .\-/]?\d{2,5}){1,5}"
_TELEPHONE = re.compile(
    rf"""(?<![\w@.+/=*])(?:
        (?P<plus>\+\d{{1,3}}[ .\-]?(?:\(\d{{1,5}}\)[ .\-]?)?{_GROUPS})
      | (?P<brackets>\(\d{{2,5}}\)[ \-]?\d{{2,5}}(?:[ .\-]\d{{2,5}}){{0,4}})
      | (?P<hyphens>\d{{2,5}}(?:-\d{{3,5}}){{1,3}})
      | (?P<dots>\d{{3}}\.\d{{3,4}}\.\d{{4}})
      | (?P<mobile>1[3-9]\d{{9}})
    )(?![\w@])""",
    re.VERBOSE | re.ASCII,
)
_AFTER_WORD = re.compile(
    rf"((?:\b(?:tele)?phones?|\bmobile|\btel|\bfax|\bcall|\bdial|\bring|\bnumber|电话|手机|致电)(?:\s+(?:me|us|number|is|on|at|no))*"
    rf"[ .:：]{{0,3}}(?:号码)?[是为:： ]{{0,2}})({_GROUPS}|\d{{5,15}})(?![\w@])",
    re.IGNORECASE | re.ASCII,
)


#: Stands in every text with a telephone number; most texts are done after looking for it.
_LONG_NUMBER = re.compile(r"[0-9][0-9 ().\-/]{3,}[0-9]")


def mask_email(text: str) -> tuple[str, int]:
    """Return the text with a mark for each e-mail address, and how many there were."""
    return _EMAIL.subn(EMAIL_MARK, text) if "@" in text else (text, 0)


def mask_telephone(text: str) -> tuple[str, int]:
    """Return the text with a mark for each telephone number of 6 to 15 digits, and how many there were."""
    if _LONG_NUMBER.search(text) is None:
        return text, 0
    found = 0

    def mask_written(match: re.Match[str]) -> str:
        nonlocal found
        number = match.group()
        if not _is_telephone(number, hyphens=match.lastgroup == "hyphens"):
            return number
        found += 1
        return TELEPHONE_MARK

    def mask_announced(match: re.Match[str]) -> str:
        nonlocal found
        if not 5 <= _num_digits(match.group(2)) <= 15:
            return match.group()
        found += 1
        return match.group(1) + TELEPHONE_MARK

    text = _TELEPHONE.sub(mask_written, text)
    return _AFTER_WORD.sub(mask_announced, text), found


def _num_digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _is_telephone(number: str, *, hyphens: bool) -> bool:
    """Whether the digits are neither too few nor too many, and no range or difference of two numbers.

    Two groups joined by a hyphen are a number if they begin with 0, or look like 555-0123 and not like 700-1000.
    """
    if not 6 <= _num_digits(number) <= 15:
        return False
    groups = number.split("-")
    if not hyphens or len(groups) > 2 or number.startswith("0"):
        return True
    return [len(group) for group in groups] == [3, 4] and not number.endswith("00")
