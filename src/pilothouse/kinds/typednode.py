"""What every compiled type can do with its values, and those types whose values have no parts of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pilothouse.kinds._gotext import source_text, type_name, value_text
from pilothouse.kinds.fieldset import LEAF, FieldSet, Path, insert, recursive_difference, union
from pilothouse.kinds.schema import Schema

__all__ = [
    "EMPTIED",
    "Atomic",
    "Comparison",
    "Scalar",
    "TypeNode",
    "TypedError",
    "fault",
    "with_self",
    "without_emptied",
]


class TypedError(ValueError):
    """An object that does not fit its schema; `errors` holds each fault with its path."""

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        many = "errors:\n  " + "\n  ".join(self.errors)
        super().__init__(self.errors[0] if len(self.errors) == 1 else many)


class _Emptied:
    """Stands for a container all of whose items were removed."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


EMPTIED = _Emptied()


def without_emptied(value: Any) -> Any:
    """Drop the keys whose containers lost all their items."""
    if isinstance(value, dict):
        return {key: without_emptied(item) for key, item in value.items() if item is not EMPTIED}
    return [without_emptied(item) for item in value] if isinstance(value, list) else value


@dataclass(slots=True)
class Comparison:
    """How a new object differs from an old one. No path is in two of the sets."""

    added: FieldSet = field(default_factory=dict)
    removed: FieldSet = field(default_factory=dict)
    modified: FieldSet = field(default_factory=dict)

    @property
    def changed(self) -> FieldSet:
        """What the new object sets: added and modified."""
        return union(self.added, self.modified)

    def without(self, ignored: FieldSet) -> Comparison:
        """Leave out the given paths and all below them."""
        if not ignored:
            return self
        return Comparison(
            recursive_difference(self.added, ignored),
            recursive_difference(self.removed, ignored),
            recursive_difference(self.modified, ignored),
        )


class TypeNode:
    """A value without fields of its own: a scalar, or an atomic list, map or object."""

    __slots__ = ()
    leaf = True

    def every(self, value: Any) -> FieldSet:
        """Return the node in which each container, item and leaf of the value is a member."""
        return LEAF

    def owned(self, value: Any) -> FieldSet | None:
        """Return the node of what one who applies the value owns, or None for nothing."""
        return LEAF

    def shape(self, value: Any) -> Any:
        """Return what, of two values, is equal only if their nodes of every member are; hashable."""
        return None

    def diff(self, old: Any, new: Any, path: Path, found: Comparison) -> None:
        """Put into `found` how two values that are not equal differ."""
        insert(found.modified, path)

    def merge(self, live: Any, applied: Any) -> Any:
        """Return the live value with the applied one laid over it."""
        return applied

    def remove(self, value: Any, items: FieldSet) -> Any:
        """Return the value without the given paths, EMPTIED when nothing is left."""
        return value

    def named(self, items: FieldSet) -> FieldSet:
        """Return the set with those declared fields as members that it has members below of."""
        return items

    def reconcile(self, items: FieldSet) -> FieldSet:
        """Return the set as the present schema has it: what became atomic is owned as a whole."""
        return items

    def check(self, value: Any) -> list[str]:
        """Return the faults of a value, each with its path: wrong types, unknown fields, items with one key."""
        return []


_NUMBER = (int, float)


class Scalar(TypeNode):
    """A number, string or boolean; one with a format of several types (`int-or-string`) may be any of them."""

    __slots__ = ("_shape",)

    def __init__(self, schema: Schema) -> None:
        self._shape: str = "any" if schema.format in {"int-or-string", "quantity"} else schema.shape
        if schema.format == "int-or-string" and schema.name:
            # Of the type itself Kubernetes judges nothing here, unlike of fields of that form in custom resources.
            self._shape = "open"

    def check(self, value: Any) -> list[str]:
        if value is None:
            return []
        if self._shape == "string":
            return [] if isinstance(value, str) else [fault("string", value)]
        if self._shape == "boolean":
            return [] if isinstance(value, bool) else [fault("boolean", value)]
        if self._shape in {"integer", "number"}:
            number = isinstance(value, _NUMBER) and not isinstance(value, bool)
            return [] if number else [fault("numeric (int or float)", value)]
        return [fault("any scalar", value)] if self._shape == "any" and isinstance(value, dict | list) else []


def fault(expected: str, value: Any) -> str:
    """Say what was expected in place of a value."""
    match expected:
        case "string":
            got = f"&value.valueUnstructured{{Value:{source_text(value)}}}"
        case "numeric (int or float)":
            got = type_name(value)
        case _:
            got = f"&{{{value_text(value)}}}"
    return f": expected {expected}, got {got}"


class Atomic(TypeNode):
    """A list, map or object that is owned and replaced as a whole."""

    __slots__ = ("_inner", "_items")

    def __init__(self, inner: TypeNode | None, items: TypeNode | None = None) -> None:
        self._inner = inner
        self._items = items

    def reconcile(self, items: FieldSet) -> FieldSet:
        return LEAF if items else items

    def check(self, value: Any) -> list[str]:
        if self._inner is not None:
            return self._inner.check(value)
        if self._items is None or value is None:
            return []
        if not isinstance(value, list):
            return [fault("list", value)]
        return [f"[{i}]{found}" for i, item in enumerate(value) for found in self._items.check(item)]


def with_self(node: FieldSet | None) -> FieldSet:
    """Return the node of what is below a path as one in which the path itself is a member too."""
    return {".": LEAF, **node} if node else LEAF
