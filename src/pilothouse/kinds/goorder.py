"""The order in which Go writes the fields of Kubernetes' types as JSON, for texts that show whole objects."""

from __future__ import annotations

from functools import cache
from typing import Any

from pilothouse.kinds.protobuf._facts import fields_of, message_of

__all__ = ["as_written"]

_TYPE_META = ("kind", "apiVersion")


def as_written(obj: dict[str, Any], group: str, version: str, kind: str) -> dict[str, Any]:
    """Return an object with its fields in the order of their structs; what is no field of them comes last.

    Costly, and reads tables that only messages need otherwise: not for each request.
    """
    message = message_of(group, version, kind)
    if message is None:
        return obj
    first = {name: obj[name] for name in _TYPE_META if name in obj}
    return {**first, **_written(message, obj)}


def _written(message: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_written(message, item) for item in value]
    if not isinstance(value, dict):
        return value
    known = _order(message)
    made: dict[str, Any] = {}
    for name, label, inner in known:
        if name not in value:
            continue
        found = value[name]
        if inner and label == "{}" and isinstance(found, dict):
            made[name] = {key: _written(inner, found[key]) for key in sorted(found)}
        else:
            made[name] = _written(inner, found) if inner else _sorted(found, label)
    return {**made, **{name: found for name, found in value.items() if name not in made}}


def _sorted(value: Any, label: str) -> Any:
    # Maps are written by key.
    return {name: value[name] for name in sorted(value)} if label == "{}" and isinstance(value, dict) else value


@cache
def _order(message: str) -> list[tuple[str, str, str]]:
    """Return name, label and message (where it is one) of the fields of a struct; those embedded in their place."""
    found: list[tuple[str, str, str]] = []
    try:
        fields = fields_of(message)
    except KeyError:
        return found
    for field in fields:
        inner = field.word.removeprefix("@") if field.word.startswith("@") else ""
        if field.inline:
            found += _order(inner)
        else:
            found.append((field.name, field.label, inner))
    return found
