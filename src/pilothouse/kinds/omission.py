"""What Go's encoder leaves out of an object: fields that are empty and marked so, whoever set them.

An object that a client sent with `labels: {}` or `hostNetwork: false` comes back from kube-apiserver without them, for
its types cannot tell such a value from none. The facts are those of the types' protobuf messages (`data/gowire.json`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from pilothouse.kinds.protobuf._facts import Field, fields_of, message_of

__all__ = ["always_written", "leave_out_empty", "leave_out_empty_metadata"]

_Drop = Callable[[Any], None]
_METADATA = "m.apis.meta.v1.ObjectMeta"
_AS_THEY_ARE = frozenset({"managedFields", "fieldsV1"})
"""Fields that the server itself writes, in which nothing is empty that is not meant to be."""
_FREE = ("JSONSchemaProps", "RawExtension", "FieldsV1", ".JSON")
"""Ends of the names of messages that hold values of any kind."""


def leave_out_empty(obj: dict[str, Any], group: str, version: str, kind: str) -> dict[str, Any]:
    """Take out of an object of a built-in kind what Go leaves out, in place; return the object."""
    drop = _drop_of(group, version, kind)
    if drop is not None:
        drop(obj)
    return obj


def leave_out_empty_metadata(obj: dict[str, Any]) -> dict[str, Any]:
    """Take out of an object's metadata what Go leaves out, in place; return the object."""
    _dropper(_METADATA)(obj.get("metadata"))
    return obj


def always_written(group: str, version: str, kind: str) -> tuple[tuple[str, str], ...]:
    """Return the lists and maps of a kind, or of its `spec`, that Go writes even if empty: as ("", "rules").

    Once stored they are null when they are empty, since their messages do not tell the two apart.
    """
    message = message_of(group, version, kind)
    if message is None:
        return ()
    found = []
    for field in _flat(message):
        if field.shown and field.label:
            found.append(("", field.name))
        elif field.name == "spec" and field.word.startswith("@") and not field.label:
            found += [("spec", inner.name) for inner in _flat(field.word[1:]) if inner.shown and inner.label]
    return tuple(found)


@cache
def _drop_of(group: str, version: str, kind: str) -> _Drop | None:
    message = message_of(group, version, kind)
    return None if message is None else _dropper(message)


@cache
def _dropper(message: str) -> _Drop:
    """Return what takes empty fields out of one message's object. Messages within are looked at when first met."""
    fields = {field.name: field for field in _flat(message)}
    omitted = frozenset(name for name, field in fields.items() if _left_out(field))
    steps: dict[str, _Drop | None] = {}

    def drop(obj: Any) -> None:
        if type(obj) is not dict:
            return
        gone: list[str] | None = None
        for name, value in obj.items():
            if not value:
                if name in omitted and value is not None:
                    gone = [*(gone or ()), name]
                continue
            if name not in steps:
                steps[name] = _step(fields.get(name))
            step = steps[name]
            if step is not None:
                step(value)
        for name in gone or ():
            del obj[name]

    return drop


def _left_out(field: Field) -> bool:
    if field.pointer or field.shown:
        return False
    return bool(field.label) or field.omit_zero or not field.word.startswith("@")


def _flat(message: str) -> list[Field]:
    """Return the fields of a message with those that stand in its place."""
    found: list[Field] = []
    for field in fields_of(message):
        found += _flat(field.word[1:]) if field.inline else [field]
    return found


def _step(field: Field | None) -> _Drop | None:
    """Return what goes through the messages within a field, None where there are none."""
    if field is None or not field.word.startswith("@") or field.name in _AS_THEY_ARE or field.word.endswith(_FREE):
        return None
    try:
        inner = _dropper(field.word[1:])
    except KeyError:
        return None
    if field.label == "[]":
        return lambda values: _each(inner, values)
    if field.label == "{}":
        return lambda values: _each(inner, values.values())
    return inner


def _each(inner: _Drop, values: Any) -> None:
    for value in values:
        inner(value)
