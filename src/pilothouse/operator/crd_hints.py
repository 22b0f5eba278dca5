"""Annotations taken apart: the types that a field may have, and what was written beside them."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import types
import uuid
from collections.abc import Collection, Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, is_typeddict

import msgspec

from pilothouse.operator.crd_errors import DefinitionError
from pilothouse.operator.crd_markers import (
    Description,
    Marker,
    Maximum,
    MaxLength,
    Minimum,
    MinLength,
    MultipleOf,
    Pattern,
)

__all__ = ["Hint", "Place", "enum_schema", "literal_schema", "read_hint", "scalar_schema"]

_SCALARS: Final[dict[Any, dict[str, Any]]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "format": "int64"},
    float: {"type": "number"},
    bytes: {"type": "string", "format": "byte"},
    dt.datetime: {"type": "string", "format": "date-time"},
    dt.date: {"type": "string", "format": "date"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    decimal.Decimal: {"type": "string"},
}
_CONTAINERS: Final[dict[Any, str]] = {
    **dict.fromkeys((dict, Mapping, MutableMapping), "map"),
    **dict.fromkeys((list, tuple, Collection, MutableSequence, Sequence), "list"),
    **dict.fromkeys((set, frozenset, AbstractSet), "set"),
}
_JSON_TYPES: Final = {str: "string", int: "integer", bool: "boolean"}
_TEXT: Final = "take a str, with Format or Pattern beside it"
_REFUSED: Final = {dt.timedelta: _TEXT, dt.time: _TEXT, complex: _TEXT}


class Place(NamedTuple):
    """Where a schema is made: the field of a class, and the classes that hold it."""

    kind: type
    field: str
    above: tuple[Any, ...] = ()

    def error(self, problem: str) -> DefinitionError:
        """Return the error that names class and field."""
        field = f".{self.field}" if self.field else ""
        return DefinitionError(f"{self.kind.__qualname__}{field}: {problem}")


class Hint(NamedTuple):
    """A type: the alternatives without None, what was written beside them, and whether it may be null."""

    types: tuple[Any, ...]
    markers: tuple[Marker, ...] = ()
    nullable: bool = False

    @property
    def origin(self) -> Any:
        """The class of a single type, without parameters."""
        return get_origin(self.types[0]) or self.types[0]

    @property
    def literal(self) -> bool:
        """Whether it lists its values."""
        return len(self.types) == 1 and get_origin(self.types[0]) is Literal

    @property
    def container(self) -> str:
        """What holds others: map, list or set; empty for others."""
        try:
            return _CONTAINERS.get(self.origin, "")
        except TypeError:
            return ""

    def refusal(self) -> str:
        """Say why there is no schema for it, and what to take instead."""
        hint = self.types[0]
        name = getattr(hint, "__name__", str(hint))
        if isinstance(hint, TypeVar):
            return f"the type of {name} is open; write the class with it: Part[int]"
        if is_typeddict(hint) or hasattr(hint, "__dataclass_fields__") or hasattr(hint, "_fields"):
            return f"{name} is no Struct; write class {name}(Struct), whose fields keep what newer versions add"
        way = _REFUSED.get(hint, "take texts, numbers, lists, maps and Structs, or Annotated[..., RawSchema({...})]")
        return f"there is no schema for {name}; {way}"


def read_hint(hint: Any) -> Hint:
    """Take a type apart; aliases and new names of types are those types. Raises TypeError for a misused marker."""
    markers: list[Marker] = []
    while True:
        if get_origin(hint) is Annotated:
            hint, *beside = get_args(hint)
            markers[:0] = [marker for one in beside for marker in _markers(one)]
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType" and not isinstance(hint, type):
            hint = hint.__value__
        else:
            break
    if get_origin(hint) not in {Union, types.UnionType}:
        return Hint((hint,), tuple(markers))
    nullable, found = False, []
    for part in get_args(hint):
        if part is type(None):
            nullable = True
        elif part is not msgspec.UnsetType:
            found.append(part)
    if len(found) == 1:
        inner = read_hint(found[0])
        return Hint(inner.types, (*inner.markers, *markers), nullable or inner.nullable)
    return Hint(tuple(found), tuple(markers), nullable)


def _markers(beside: Any) -> list[Marker]:
    if isinstance(beside, Marker):
        return [beside]
    if isinstance(beside, type) and issubclass(beside, Marker):
        raise TypeError(f"{beside.__name__} beside a type is a class; write {beside.__name__}(...)")
    return _of_meta(beside) if isinstance(beside, msgspec.Meta) else []


def _of_meta(meta: msgspec.Meta) -> list[Marker]:
    """Return what msgspec's own constraints say."""
    made: tuple[tuple[Any, Any], ...] = (
        (meta.ge, Minimum),
        (meta.gt, lambda value: Minimum(value, exclusive=True)),
        (meta.le, Maximum),
        (meta.lt, lambda value: Maximum(value, exclusive=True)),
        (meta.multiple_of, MultipleOf),
        (meta.pattern, Pattern),
        (meta.min_length, MinLength),
        (meta.max_length, MaxLength),
        (meta.description, Description),
    )
    return [make(value) for value, make in made if value is not None]


def scalar_schema(hint: Any) -> dict[str, Any] | None:
    """Return the schema of a text, number or moment; None for other types."""
    found = _SCALARS.get(hint) if isinstance(hint, type) else None
    return None if found is None else dict(found)


def literal_schema(hints: list[Any], place: Place) -> dict[str, Any]:
    """Return the schema of values that are listed; empty where there are none."""
    values = [value for hint in hints for value in get_args(read_hint(hint).types[0])]
    return _listed(values, place) if values else {}


def enum_schema(hint: Any, place: Place) -> dict[str, Any] | None:
    """Return the schema of an enumeration; None for other types."""
    if not (isinstance(hint, type) and issubclass(hint, enum.Enum)):
        return None
    return _listed([member.value for member in hint], place)


def _listed(values: list[Any], place: Place) -> dict[str, Any]:
    given = [value for value in dict.fromkeys(values) if value is not None]
    kinds = {_JSON_TYPES.get(type(value), "") for value in given}
    if len(kinds) != 1 or kinds == {""}:
        raise place.error("the values that it lists are not of one type; take texts alone, or whole numbers alone")
    made: dict[str, Any] = {"type": kinds.pop(), "enum": given}
    return made | ({"nullable": True, "enum": [*given, None]} if None in values else {})
