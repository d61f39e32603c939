"""The reference page of a recipe, made from its section classes, so that page and program cannot disagree.

The types and ranges come from pydantic's JSON Schema, the descriptions from the docstrings of classes and fields, the
defaults from the values that a section would really have.
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin

from sanbai.foundation.recipe import RecipeSection

_TYPE_NAMES = {"integer": "integer", "number": "number", "boolean": "true or false", "string": "text"}
_ABSENT = object()


def reference_page(section_class: type[RecipeSection], *, title: str = "Recipe reference") -> str:
    """Return the Markdown page of a recipe: a table a section, in the order of the classes.

    Args:
        section_class: the whole recipe, or one section of it.
        title: the page's heading.
    """
    introduction = (
        "This page is generated from the code by `sanbai.foundation.recipe_reference`; change the docstrings there, "
        "not the text here. A recipe is one TOML file. Unknown keys are refused before anything starts. Ranges are "
        "intervals: a square bracket includes its end, a round one does not."
    )
    sections = _section(section_class, section_class.model_construct(), path=(), shape="one", purpose="")
    return "\n\n".join([f"# {title}", introduction, *sections]) + "\n"


#: How often a field holds its section: once, in a list (`[[name]]`), or under names of the user's choice.
_Shape = Literal["one", "list", "table"]


def _section(
    kind: type[RecipeSection], values: object, path: tuple[str, ...], shape: _Shape, purpose: str
) -> Iterator[str]:
    """Yield heading, purpose (if it says more than the heading), description, table, and the sections inside."""
    name_in_toml = f"[[{'.'.join(path)}]]" if shape == "list" else f"[{'.'.join(path)}]"
    if path:
        yield f"## `{name_in_toml}`"
    if purpose and purpose != f"Section `{name_in_toml}`.":
        yield inspect.cleandoc(purpose)
    yield inspect.cleandoc(kind.__doc__ or "")

    schema = kind.model_json_schema()
    rows: list[str] = []
    inner: list[Iterator[str]] = []
    for name, field in kind.model_fields.items():
        default = getattr(values, name, _ABSENT)
        held = _held_section(field.annotation)
        if held is None:
            rows.append(_row(name, schema["properties"][name], schema.get("$defs", {}), default))
            continue
        held_kind, held_shape = held
        held_values = default if isinstance(default, held_kind) else held_kind.model_construct()
        held_path = (*path, name, "NAME") if held_shape == "table" else (*path, name)
        inner.append(_section(held_kind, held_values, held_path, held_shape, field.description or ""))
        if held_shape != "one":
            inner.append(iter([_repetition(name, default)]))
    if rows:
        yield "\n".join(["| key | type | default | range | description |", "|---|---|---|---|---|", *rows])
    for parts in inner:
        yield from parts


def _repetition(name: str, default: object) -> str:
    number = len(default) if isinstance(default, tuple | list | dict) else 0
    return f"One such table for each entry of `{name}`; the default has {number or 'none'}."


def _held_section(annotation: object) -> tuple[type[RecipeSection], _Shape] | None:
    """Return the section class that a field holds, and how often; None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, RecipeSection):
        return annotation, "one"
    for argument in get_args(annotation):
        if (found := _held_section(argument)) is not None:
            origin = get_origin(annotation)
            if origin in {Union, types.UnionType}:
                return found
            return found[0], "table" if isinstance(origin, type) and issubclass(origin, Mapping) else "list"
    return None


def _row(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any], default: object) -> str:
    schema = _resolve(schema, definitions)
    shown = "**must be given**" if default is _ABSENT else f"`{_toml(default)}`"
    description = " ".join(str(schema.get("description", "")).split())
    cells = (f"`{name}`", _type(schema, definitions), shown, _range(schema), description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _resolve(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema with a reference to a shared definition put in place."""
    if "$ref" not in schema:
        return schema
    return {**definitions[schema["$ref"].removeprefix("#/$defs/")], **schema}


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    schema = _resolve(schema, definitions)
    if "enum" in schema:
        return " or ".join(f"`{_toml(choice)}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{_toml(schema['const'])}`"
    if "anyOf" in schema:
        return " or ".join(_type(choice, definitions) for choice in schema["anyOf"])
    if schema.get("type") == "array":
        items = schema.get("items") or {"anyOf": schema.get("prefixItems", [])}
        return f"list of {_type(items, definitions)}"
    if schema.get("type") == "object":
        return f"table of {_type(schema.get('additionalProperties', {}), definitions)}"
    return _TYPE_NAMES.get(str(schema.get("type")), "any value")


def _range(schema: Mapping[str, Any]) -> str:
    """Return the interval of a number, or how long a text or a list may be; nothing where all is allowed."""
    for low, high, unit in (("minLength", "maxLength", "characters"), ("minItems", "maxItems", "entries")):
        bounds = {"minimum": schema.get(low, 0), **({"maximum": schema[high]} if high in schema else {})}
        if low in schema or high in schema:
            return f"{_interval(bounds)} {unit}"
    return _interval(schema)


def _interval(schema: Mapping[str, Any]) -> str:
    start, end = "(−∞", "∞)"
    if "minimum" in schema:
        start = f"[{_toml(schema['minimum'])}"
    elif "exclusiveMinimum" in schema:
        start = f"({_toml(schema['exclusiveMinimum'])}"
    if "maximum" in schema:
        end = f"{_toml(schema['maximum'])}]"
    elif "exclusiveMaximum" in schema:
        end = f"{_toml(schema['exclusiveMaximum'])})"
    return "" if (start, end) == ("(−∞", "∞)") else f"{start}, {end}"


def _toml(value: object) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    if isinstance(value, tuple | list | frozenset | set):
        entries = sorted(value) if isinstance(value, frozenset | set) else value
        return "[" + ", ".join(map(_toml, entries)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, RecipeSection):
        return _toml(value.model_dump())
    return json.dumps(str(value) if isinstance(value, PurePath) else value, ensure_ascii=False)
