"""What Go's encoder writes though nothing was set: null times of conditions, zero counts, empty structs.

An object that a client sent lacks them, and an answer of kube-apiserver has them. The facts are those of the types'
protobuf messages (`data/gowire.json`). The defaults of most kinds bring what their specs need; this is for statuses
and for kinds without defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from pilothouse.kinds.protobuf._decode import plan_of
from pilothouse.kinds.protobuf._facts import Field, fields_of, message_of

__all__ = ["complete", "complete_status"]

_Fill = Callable[[Any], None]
_PARTS = frozenset({"metadata", "status"})
_SCHEMA = "JSONSchemaProps"
"""Schemas of custom resources hold themselves and values of any kind; nothing is ever added to them."""


def complete(obj: dict[str, Any], group: str, version: str, kind: str) -> dict[str, Any]:
    """Fill in what Go always writes, in place, save in metadata and status; return the object."""
    found = _filler_of(group, version, kind, False)
    if found is not None:
        found(obj)
    return obj


def complete_status(obj: dict[str, Any], group: str, version: str, kind: str) -> dict[str, Any]:
    """Fill in what Go always writes of a status that is there and not empty, in place; return the object."""
    if obj.get("status"):
        found = _filler_of(group, version, kind, True)
        if found is not None:
            found(obj)
    return obj


@cache
def _filler_of(group: str, version: str, kind: str, status: bool) -> _Fill | None:
    message = message_of(group, version, kind)
    if message is None:
        return None
    if status:
        fields = [field for field in fields_of(message) if field.name == "status"]
        steps = [step for field in fields if (step := _step(field)) is not None]

        def fill_status(obj: Any) -> None:
            for name, act in steps:
                act(obj[name])

        return fill_status if steps else None
    return _filler(message, frozenset(_PARTS))


@cache
def _filler(message: str, without: frozenset[str] = frozenset()) -> _Fill:
    """Return what fills one message's object. Messages within are looked at when they first come."""
    plan = plan_of(message)
    empty = {name: value for name, value in plan.empty.items() if name not in without}
    late = [(name, make) for name, make in plan.late if name not in without]
    steps: list[tuple[str, _Fill]] = []
    ready = False

    def fill(obj: Any) -> None:
        nonlocal ready
        if not isinstance(obj, dict):
            return
        if not ready:
            steps.extend(step for field in _flat(message) if field.name not in without and (step := _step(field)))
            ready = True
        for name, value in empty.items():
            if name not in obj:
                obj[name] = value
        for name, make in late:
            if name not in obj:
                obj[name] = make()
        for name, act in steps:
            inner = obj.get(name)
            if inner is not None:
                act(inner)

    return fill


def _flat(message: str) -> list[Field]:
    """Return the fields of a message with those that stand in its place."""
    found: list[Field] = []
    for field in fields_of(message):
        found += _flat(field.word[1:]) if field.inline else [field]
    return found


def _step(field: Field) -> tuple[str, _Fill] | None:
    if not field.word.startswith("@") or field.word.endswith(_SCHEMA):
        return None
    try:
        inner = _filler(field.word[1:])
    except KeyError:
        return None

    def of_list(values: list[Any]) -> None:
        for value in values:
            inner(value)

    def of_map(values: dict[str, Any]) -> None:
        for value in values.values():
            inner(value)

    acts: dict[str, _Fill] = {"[]": of_list, "{}": of_map}
    return field.name, acts.get(field.label, inner)
