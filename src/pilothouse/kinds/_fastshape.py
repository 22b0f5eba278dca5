"""A schema as a type that msgspec checks in compiled code, for the objects that are as they should be.

What it accepts unchanged needs no closer look. It refuses a little more than the full check does (null, rare dates,
quantities and times that are written in another way), so a refusal only means that the full check decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import msgspec
from msgspec import Meta

from ._goformats import INT32, INT64
from .schema import Schema

__all__ = ["compile_fast"]

# The days that every month has, then those of the longer ones; the 29th of February is left to the full check.
_DAY = (
    r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
)
_YEAR = r"^[0-9]{4}-"
# Quantities that are surely written as Kubernetes writes them; the full check rewrites the others.
_QUANTITY = (
    r"^(?:0|[1-9][0-9]{0,2}(?:[numkMGTPE]|[KMGTP]i)?|(?![1-9]000)[1-9][0-9]{3}[numkMGTPE]?"
    r"|(?!1024|2048|3072|4096|5120|6144|7168|8192|9216)[1-9][0-9]{3}[KMG]i)\Z"
)

_Int32 = Annotated[int, Meta(ge=INT32[0], le=INT32[1])]

_SCALARS: dict[tuple[str, str], Any] = {
    ("string", ""): str,
    ("string", "date-time"): Annotated[str, Meta(pattern=rf"{_YEAR}{_DAY}Z\Z")],
    ("string", "micro-time"): Annotated[str, Meta(pattern=rf"{_YEAR}{_DAY}\.[0-9]{{6}}Z\Z")],
    ("string", "int-or-string"): _Int32 | str,
    ("string", "quantity"): Annotated[str, Meta(pattern=_QUANTITY)],
    ("integer", "int32"): _Int32,
    ("integer", "int64"): Annotated[int, Meta(ge=INT64[0], le=INT64[1])],
    ("number", "double"): float | int,
    ("boolean", ""): bool,
    ("any", ""): Any,
}


# Type checkers only follow what is written out.
_typed_dict: Any = TypedDict


class _CannotError(Exception):
    """The schema has a part that only the full check understands."""


def compile_fast(schema: Schema) -> Callable[[Any], bool] | None:
    """Return a function that says whether a value is surely right, or None where the schema is beyond this.

    Types that contain themselves and bytes are beyond it.
    """
    try:
        shape = _shape_of(schema)
    except _CannotError:
        return None
    convert, wrong = msgspec.convert, msgspec.ValidationError

    def surely_right(value: Any) -> bool:
        try:
            # An unknown field is left out of what `convert` returns, so the two differ.
            return bool(convert(value, shape) == value)
        except (wrong, RecursionError):
            return False

    return surely_right


# The types of named schemas, which are few and shared by all kinds. None: cannot be, or is under way and holds itself.
_NAMED: dict[Schema, Any] = {}


def _shape_of(schema: Schema) -> Any:
    match schema.shape:
        case "object":
            return _object_shape(schema)
        case "list" if schema.element is not None:
            return list[_shape_of(schema.element)]  # type: ignore[misc]
        case "map" if schema.element is not None:
            return dict[str, _shape_of(schema.element)]  # type: ignore[misc]
    try:
        return _SCALARS[schema.shape, schema.format]
    except KeyError:
        raise _CannotError from None


def _object_shape(schema: Schema) -> Any:
    if schema.preserve_unknown or _NAMED.get(schema, schema) is None:
        raise _CannotError
    if schema in _NAMED:
        return _NAMED[schema]
    if schema.name:
        _NAMED[schema] = None
    fields = {name: _shape_of(field) for name, field in schema.fields.items()}
    made = _typed_dict(schema.name or "Object", fields, total=False)
    if schema.name:
        _NAMED[schema] = made
    return made
