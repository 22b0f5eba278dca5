"""What Kubernetes says of an object that does not fit its Go type when it comes from plain values, not from JSON.

Strategic merge patches go that way: the patched values are put into the struct one by one, with texts of their own
(`cannot restore struct from: string`). Asked only when decoding has failed already.
"""

from __future__ import annotations

from typing import Any

from ._goformats import INT64, base64_fault
from ._gonames import Place, go_type
from .prune import DecodeError, coded
from .schema import ANY, Schema

__all__ = ["restore_fault", "with_restored_numbers"]

_KINDS: dict[type, str] = {dict: "map", list: "slice", str: "string", bool: "bool", int: "int64", float: "float64"}


def restore_fault(schema: Schema, value: Any) -> str | None:
    """Return what is wrong with the first value that its Go type cannot take, or None where all fit.

    value: with its fields in the order of their structs (`goorder.as_written`), in which they are restored.
    """
    return _fault(schema, value, None)


def with_restored_numbers(schema: Schema, value: Any) -> Any:
    """Return a value without a fault with its integers as Go's conversion leaves those that are too large."""
    match schema.shape:
        case "object" if isinstance(value, dict):
            fields = schema.fields
            return {n: with_restored_numbers(fields[n], v) if n in fields else v for n, v in value.items()}
        case "map" if isinstance(value, dict):
            return {name: with_restored_numbers(schema.element or ANY, item) for name, item in value.items()}
        case "list" if isinstance(value, list):
            return [with_restored_numbers(schema.element or ANY, item) for item in value]
        case "integer" if isinstance(value, int | float):
            whole = int(value)
            if not INT64[0] <= whole <= INT64[1]:
                whole = INT64[0]
            return whole if schema.format != "int32" else (whole + 2**31) % 2**32 - 2**31
    return value


def _fault(schema: Schema, value: Any, place: Place) -> str | None:
    if value is None or schema.shape == "any":
        return None
    match schema.shape:
        case "object":
            return _object_fault(schema, value, place)
        case "map":
            if not isinstance(value, dict):
                return f"cannot restore map from {_kind(value)}"
            return _first(schema.element or ANY, value.items(), place)
        case "list":
            if not isinstance(value, list):
                return f"cannot restore slice from {_kind(value)}"
            return _first(schema.element or ANY, enumerate(value), place)
    if schema.format == "byte":
        return _bytes_fault(value)
    if schema.format in {"quantity", "date-time", "micro-time", "int-or-string"}:
        try:
            coded(schema.format, value, None)
        except DecodeError as error:
            return str(error)
        return None
    return _scalar_fault(schema, value, place)


def _object_fault(schema: Schema, value: Any, place: Place) -> str | None:
    if not isinstance(value, dict):
        return f"cannot restore struct from: {_kind(value)}"
    for name, item in value.items():
        field = schema.fields.get(name)
        if field is not None and (found := _fault(field, item, (place, schema.name, name))):
            return found
    return None


def _first(element: Schema, items: Any, place: Place) -> str | None:
    for step, item in items:
        if found := _fault(element, item, (place, None, step)):
            return found
    return None


def _bytes_fault(value: Any) -> str | None:
    if isinstance(value, list):
        return None if all(_kind(item) == "int64" for item in value) else _unrecognised("uint8")
    if not isinstance(value, str):
        return f"cannot restore slice from {_kind(value)}"
    fault = base64_fault(value)
    return f"error decoding from json: {fault}" if fault else None


def _scalar_fault(schema: Schema, value: Any, place: Place) -> str | None:
    """Numbers can be made of each other save that whole ones take no fractions; nothing else can."""
    source = _kind(value)
    match schema.shape:
        case "string":
            if source == "string":
                return None
            # Go can make a string of an integer, but means a character by it.
            return f"cannot convert int64 to {go_type(schema, place)}" if source == "int64" else _unrecognised("string")
        case "boolean":
            return None if source == "bool" else _unrecognised("bool")
    number = "float64" if schema.shape == "number" else "int32" if schema.format == "int32" else "int64"
    if source not in {"int64", "float64"}:
        return _unrecognised(number)
    if number != "float64" and source == "float64" and not float(value).is_integer():
        return f"cannot convert float64 to {go_type(schema, place)}"
    return None


def _unrecognised(kind: str) -> str:
    return f"unrecognized type: {kind}"


def _kind(value: Any) -> str:
    """Name the kind of the Go value that a JSON value is read into; integers that are too large are floats."""
    if type(value) is int and not INT64[0] <= value <= INT64[1]:
        return "float64"
    return _KINDS[type(value)]
