"""Paths into objects (`.spec.replicas`) of columns, scales and selectable fields, and what they lead to."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from pilothouse.operator.crd_errors import DefinitionError

__all__ = ["check_path", "column_type", "schema_at"]

_STEP: Final = re.compile(r"\.(?P<name>[A-Za-z_][\w-]*)|\[(?P<index>\d+|\*)\]")
_META: Final[dict[str, Any]] = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {
        "creationTimestamp": {"type": "string", "format": "date-time"},
        "deletionTimestamp": {"type": "string", "format": "date-time"},
        "generation": {"type": "integer"},
    },
}
_OPEN: Final[dict[str, Any]] = {}
"""What is not known of a field: of one that servers keep as it is, and beyond a path that is more than steps."""


def check_path(kind: type, where: str, path: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of what a path leads to. Raises DefinitionError where no field has that name."""
    if not path.startswith("."):
        raise DefinitionError(f"{kind.__qualname__}: {where}: {path!r} does not begin with a dot: .spec.replicas")
    try:
        return schema_at(schema, path)
    except LookupError as error:
        name, known = error.args
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}"
        text = f"{kind.__qualname__}: {where}: {path} leads nowhere: no field {name!r}, {hint} (JSON's names)"
        raise DefinitionError(text) from error


def schema_at(schema: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Follow a path. Raises LookupError with the name that is missing and those there are."""
    found, at = schema, 0
    found = {**schema, "properties": {**schema["properties"], "metadata": _META}}
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            return _OPEN
        at = step.end()
        found = found.get("items", _OPEN) if step["index"] else _field(found, step["name"])
    return found


def _field(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = schema.get("properties", {})
    if name in fields:
        found: Mapping[str, Any] = fields[name]
        return found
    below = schema.get("additionalProperties")
    if isinstance(below, Mapping):
        return below
    if schema.get("x-kubernetes-preserve-unknown-fields") or not schema:
        return _OPEN
    raise LookupError(name, list(fields))


def column_type(schema: Mapping[str, Any]) -> str:
    """Return the type of a column that shows such values."""
    if schema.get("format") in {"date", "date-time"}:
        return "date"
    kind: str = schema.get("type", "string")
    return kind if kind in {"boolean", "integer", "number"} else "string"
