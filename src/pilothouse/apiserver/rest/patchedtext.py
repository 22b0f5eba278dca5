"""A patched object as a refusal shows it: JSON in which what the patch touched is sorted, the rest as it was."""

from __future__ import annotations

from typing import Any

import msgspec

from pilothouse.apiserver.ports import Object

__all__ = ["in_order", "patched_text", "touched_by"]

_UNTOUCHED: Any = object()
_HTML = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def patched_text(obj: Object) -> str:
    """Return an object as JSON, as Go writes it."""
    return msgspec.json.encode(obj).decode().translate(_HTML)


def in_order(value: Any, patch: Any) -> Any:
    """Return a value with the fields of those objects sorted that a patch goes through or brings.

    patch: a merge patch, or what `touched_by` tells of others; None where all are sorted.
    """
    if patch is _UNTOUCHED:
        return value
    if isinstance(value, dict):
        inside = patch if isinstance(patch, dict) else None
        return {
            name: in_order(value[name], patch if inside is None else inside.get(name, _UNTOUCHED))
            for name in sorted(value)
        }
    if isinstance(value, list) and not isinstance(patch, dict):
        return [in_order(item, patch) for item in value]
    return value


def touched_by(operations: Any) -> dict[str, Any]:
    """Return the objects that a JSON patch goes through, as nested dictionaries by field."""
    found: dict[str, Any] = {}
    for operation in operations if isinstance(operations, list) else ():
        steps = str(operation.get("path") or "").split("/")[1:-1] if isinstance(operation, dict) else ()
        inner = found
        for step in steps:
            inner = inner.setdefault(step.replace("~1", "/").replace("~0", "~"), {})
    return found
