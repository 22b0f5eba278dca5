"""What Go calls the fields and types that a decoder's messages name.

Most follow from the schema; `data/gotypes.json` adds named strings, lists and maps, and the structs that hold embedded
fields.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import NamedTuple

import msgspec

from .schema import ANY, Schema
from .table import full_name, kinds

__all__ = ["ROOT", "GoPlace", "go_type"]

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


class GoPlace(NamedTuple):
    """Where a value stands: the struct with the field, the fields on the way, and the type if the schema lacks it."""

    struct: str
    stack: str
    type: str

    def field(self, owner: str, name: str) -> GoPlace:
        """Return the place of a field of the type with the full name `owner`."""
        key = f"{owner}.{name}"
        step = f"{_embedded()[key]}.{name}" if key in _embedded() else name
        return GoPlace(owner.rpartition(".")[2], f"{self.stack}.{step}" if self.stack else step, _named().get(key, ""))

    def element(self) -> GoPlace:
        """Return the place of the elements of a list, which Go does not name."""
        return self._replace(type=self.type[2:] if self.type.startswith("[]") else "")

    def value(self) -> GoPlace:
        """Return the place of the values of a map, which Go does not name."""
        return self._replace(type=self.type.partition("]")[2] if self.type.startswith("map[") else "")


ROOT = GoPlace("", "", "")


def go_type(schema: Schema) -> str:
    """Name the Go type of a schema as far as the schema tells it."""
    if schema.name:
        return ".".join(schema.name.rsplit(".", 2)[1:])
    match schema.shape:
        case "list":
            return f"[]{go_type(schema.element or ANY)}"
        case "map":
            return f"map[string]{go_type(schema.element or ANY)}"
    if schema.format == "byte":
        return "[]uint8"
    return "int32" if schema.format == "int32" else _SCALARS[schema.shape]
