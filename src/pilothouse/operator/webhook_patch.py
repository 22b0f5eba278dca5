"""The JSON patch between two documents: what to do to one so that it becomes the other. Follows RFC 6902."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pilothouse.kinds.mergepatch import equal

__all__ = ["json_patch"]

Operation = dict[str, Any]


def json_patch(before: dict[str, Any], after: dict[str, Any]) -> list[Operation]:
    """Return operations that make `before` into `after`; `pilothouse.kinds.jsonpatch.apply` undoes the riddle.

    Only `add`, `remove` and `replace` are used, in an order that is the same for the same documents. 1, 1.0 and true
    differ, as they do in JSON. Nothing given is changed, and the operations share values with `after`.
    """
    return [*_objects("", before, after)]


def _differing(path: str, before: Any, after: Any) -> Iterator[Operation]:
    if type(before) is dict and type(after) is dict:
        yield from _objects(path, before, after)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        yield from _lists(path, before, after)
    elif not equal(before, after):
        yield {"op": "replace", "path": path, "value": after}


def _objects(path: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Operation]:
    for name, value in before.items():
        below = f"{path}/{_escaped(name)}"
        if name not in after:
            yield {"op": "remove", "path": below}
        else:
            yield from _differing(below, value, after[name])
    for name, value in after.items():
        if name not in before:
            yield {"op": "add", "path": f"{path}/{_escaped(name)}", "value": value}


def _lists(path: str, before: Sequence[Any], after: Sequence[Any]) -> Iterator[Operation]:
    """Leave what is the same at both ends, so that an item put in or taken out is one operation."""
    shorter = min(len(before), len(after))
    first = 0
    while first < shorter and equal(before[first], after[first]):
        first += 1
    last = 0
    while last < shorter - first and equal(before[-1 - last], after[-1 - last]):
        last += 1
    old, new = len(before) - last, len(after) - last
    for position in range(first, min(old, new)):
        yield from _differing(f"{path}/{position}", before[position], after[position])
    # From the end, so that positions before stay what they are.
    for position in range(old - 1, new - 1, -1):
        yield {"op": "remove", "path": f"{path}/{position}"}
    for position in range(old, new):
        yield {"op": "add", "path": f"{path}/{position}", "value": after[position]}


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
