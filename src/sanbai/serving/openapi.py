"""The OpenAPI 3.1 document, made from the table of routes and the classes that check bodies: it cannot say otherwise.

Pages and their files are left out.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from sanbai.serving.access import SAFE_METHODS
from sanbai.serving.routes import NoBody, Row

SCHEMAS = "#/components/schemas/"
STATIC = "/static/"
_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string", "minLength": 1},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
        }
    },
    "required": ["error"],
}


def is_documented(row: Row) -> bool:
    """Whether programs may want a route: no page, and no file of one."""
    return not row.is_page and not row.path.startswith(STATIC)


def document_path(row: Row) -> str:
    """Return a route's path as OpenAPI writes it."""
    return _PARAMETER.sub(r"{\1}", row.path)


def document(rows: Sequence[Row], *, version: str) -> dict[str, Any]:
    """Return the document as a JSON value.

    Args:
        rows: the table.
        version: of the program.
    """
    shown = [row for row in rows if is_documented(row)]
    bodies = dict.fromkeys(row.body for row in shown if _has_body(row))
    schemas, definitions = models_json_schema(
        [(body, "validation") for body in bodies], ref_template=SCHEMAS + "{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for row in shown:
        operation = _operation(row)
        if _has_body(row):
            content = {"application/json": {"schema": schemas[row.body, "validation"]}}
            operation["requestBody"] = {"required": True, "content": content}
        paths.setdefault(document_path(row), {})[row.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sanbai", "version": version},
        "paths": paths,
        "components": {
            "schemas": {**definitions.get("$defs", {}), "Problem": _ERROR},
            "responses": {
                "Problem": {
                    "description": "What is wrong, in OpenAI's envelope; x-should-retry says whether to try again, "
                    "Retry-After when.",
                    "content": {"application/json": {"schema": {"$ref": SCHEMAS + "Problem"}}},
                }
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _has_body(row: Row) -> bool:
    return row.method not in SAFE_METHODS and row.body is not NoBody


def _operation(row: Row) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name, _ in _PARAMETER.findall(row.path)
    ]
    in_query = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in row.query]
    words = re.findall(r"\w+", document_path(row).lower())
    summary = (inspect.getdoc(row.handle) or "").partition("\n")[0]
    return {
        "operationId": "_".join([row.method.lower(), *words]),
        "summary": summary,
        "security": [] if row.access == "anyone" else [{"key": []}],
        "x-least-role": row.access,
        "parameters": in_path + in_query,
        "responses": {
            "2XX": {"description": summary or "Done."},
            "3XX": {"description": "Elsewhere."},
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
