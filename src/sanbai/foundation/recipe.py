"""Recipes: one TOML file, a frozen typed section a stage, checked whole before anything starts.

A misspelt key fails with its place and the nearest known one:
`recipes/tiny.toml: ppo.kl_coeff: unknown key; did you mean kl_coef?`
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sanbai.foundation.errors import RecipeError


class RecipeSection(BaseModel):
    """Base of every section: frozen, unknown keys refused, each field's docstring is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    no_number_depends_on: ClassVar[frozenset[str]] = frozenset()
    """Fields that say how something is computed, not what comes out; an artifact's id leaves them out."""


Section = TypeVar("Section", bound=RecipeSection)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        RecipeError: the file is absent, not UTF-8, or not TOML; one line with its place.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe; recipes/ in the source tree holds the ones that ship") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: byte {error.start} is not UTF-8; save the recipe as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None


def validate_recipe(kind: type[Section], values: dict[str, Any], *, source: str) -> Section:
    """Turn plain values into a section tree.

    Args:
        kind: the section class.
        values: what the file said.
        source: named in the message, usually the file's path.

    Raises:
        RecipeError: the first thing that does not fit, in one line.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            detail = "unknown key" + _suggestion(kind, tuple(problem["loc"]))
        else:
            message = problem["msg"].removeprefix("Value error, ")
            message = message[0].lower() + message[1:]
            # A check over a whole section says itself what it found.
            detail = message if isinstance(problem["input"], dict) else f"{message}; found {problem['input']!r}"
        raise RecipeError(": ".join(filter(None, (source, place, detail)))) from None


def _suggestion(kind: type[RecipeSection], location: tuple[int | str, ...]) -> str:
    """Return `; did you mean X?` for the nearest key of the section that `location` lies in, or nothing."""
    section: Any = kind
    for part in location[:-1]:
        field = section.model_fields.get(part) if hasattr(section, "model_fields") else None
        if field is None:
            return ""
        section = field.annotation
    known = list(getattr(section, "model_fields", {}))
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(known)}"
