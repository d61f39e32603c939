"""Reading one field of a row: the value, or one line that says where, what was found and what was wanted."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from sanbai.foundation.errors import DataError

Row = Mapping[str, Any]


def read_text(row: Row, name: str, *, where: str) -> str:
    """Return a field that must hold text.

    Args:
        row: the JSON object.
        name: the field.
        where: file and line, for the message.

    Raises:
        DataError: absent, or not text.
    """
    if name not in row:
        near = difflib.get_close_matches(name, map(str, row), n=1)
        found = f"; did you mean {near[0]}?" if near else f"; found {', '.join(map(str, row)) or 'an empty object'}"
        raise DataError(f"{where}: no field {name!r}{found}")
    return _check_text(row[name], name, where)


def read_optional_text(row: Row, name: str, default: str, *, where: str) -> str:
    """Return a text field, or the default where the row does not hold it.

    Raises:
        DataError: there, but neither text nor null.
    """
    value = row.get(name)
    return default if value is None else _check_text(value, name, where)


def read_identity(row: Row, name: str, default: str, *, where: str) -> str:
    """Return a field that names the row, text or whole number, as text; the default where the row does not hold it.

    Raises:
        DataError: something else, or empty.
    """
    value = row.get(name, default)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(
            f"{where}: field {name!r}: found {_name(value)}, wanted a text or a whole number that names the row"
        )
    return str(value)


def read_whole_number(row: Row, name: str, default: int, *, where: str) -> int:
    """Return a field that must hold a whole number, or the default where the row does not hold it.

    Raises:
        DataError: something else.
    """
    value = row.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{where}: field {name!r}: found {_name(value)}, wanted a whole number")
    return value


def read_list(row: Row, name: str, *, where: str) -> Sequence[Any]:
    """Return a field that must hold a list with something in it.

    Raises:
        DataError: absent, not a list, or empty.
    """
    value = row.get(name)
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else "nothing" if value is None else _name(value)
        raise DataError(f"{where}: field {name!r}: found {found}, wanted a list with at least one entry")
    return value


def _check_text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: field {name!r}: found {_name(value)}, wanted text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where}: field {name!r}: character {error.start} is half of a surrogate pair, wanted Unicode"
            ) from None
    return value


def _name(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    if value == "":
        return "empty text"
    return "null" if value is None else kinds.get(type(value), type(value).__name__)
