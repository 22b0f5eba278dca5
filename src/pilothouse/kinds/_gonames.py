"""What Go calls the fields and types that a decoder's messages name.

Most follow from the schema; `data/gotypes.json` adds named strings, lists and maps, and the structs that hold embedded
fields.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import msgspec

from .schema import ANY, Schema
from .table import full_name, kinds

__all__ = ["Place", "field_path", "go_place", "go_type"]

_SCALARS = {"integer": "int64", "number": "float64", "boolean": "bool", "string": "string", "any": "interface {}"}


class _Facts(msgspec.Struct):
    """Named types by the fields that have them; fields by type and the struct embedded there."""

    named: dict[str, list[str]]
    embedded: dict[str, dict[str, list[str]]]


@cache
def _facts() -> _Facts:
    place = resources.files(__package__) / "data" / "gotypes.json"
    return msgspec.json.decode(place.read_bytes(), type=_Facts)


@cache
def _named() -> dict[str, str]:
    return {full_name(field): name for name, fields in _facts().named.items() for field in fields}


@cache
def _embedded() -> dict[str, str]:
    found = {f"{name}.{field}": "TypeMeta" for name in kinds().values() for field in ("apiVersion", "kind")}
    for short, structs in _facts().embedded.items():
        found.update({f"{full_name(short)}.{field}": struct for struct, fields in structs.items() for field in fields})
    return found


Place = tuple["Place", str | None, str | int] | None
"""Where a value stands: the place around it, then the full name of the type that has it as a field (None in a list or
map) and its field, key or index. None is the top. Told only when a message needs it."""


def _steps(place: Place) -> list[tuple[str | None, str | int]]:
    """Return owners and steps from the top down."""
    steps = []
    while place is not None:
        steps.append((place[1], place[2]))
        place = place[0]
    return steps[::-1]


def field_path(place: Place) -> str:
    """Return the path of field validation: `spec.containers[0].foo`."""
    made = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for _, step in _steps(place))
    return made.removeprefix(".")


def go_place(place: Place) -> str:
    """Return the innermost struct and the fields on the way, as Go names them: `Probe.spec.containers.httpGet`."""
    fields = [(owner, f"{owner}.{step}", step) for owner, step in _steps(place) if owner is not None]
    stack = (f"{_embedded()[key]}.{step}" if key in _embedded() else str(step) for _, key, step in fields)
    return ".".join([fields[-1][0].rpartition(".")[2], *stack])


def go_type(schema: Schema, place: Place) -> str:
    """Name the Go type of the value at a place, which has this schema."""
    inside = []
    while place is not None and place[1] is None:
        inside.append(place[2])
        place = place[0]
    name = _named().get(f"{place[1]}.{place[2]}", "") if place is not None else ""
    for step in reversed(inside):
        if isinstance(step, int):
            name = name[2:] if name.startswith("[]") else ""
        else:
            name = name.partition("]")[2] if name.startswith("map[") else ""
    return name or _told(schema)


def _told(schema: Schema) -> str:
    """Name the Go type of a schema as far as the schema tells it."""
    if schema.name:
        return ".".join(schema.name.rsplit(".", 2)[1:])
    match schema.shape:
        case "list":
            return f"[]{_told(schema.element or ANY)}"
        case "map":
            return f"map[string]{_told(schema.element or ANY)}"
    if schema.format == "byte":
        return "[]uint8"
    return "int32" if schema.format == "int32" else _SCALARS[schema.shape]
