"""JSON values as Go prints them, since the texts of Kubernetes' errors carry them so."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from ._goformats import INT64, quote

__all__ = ["JSON_NAMES", "TYPE_NAMES", "source_text", "string_verb", "type_name", "value_text"]

_LEAST, _MOST = INT64

TYPE_NAMES: dict[type, str] = {
    dict: "map[string]interface {}",
    list: "[]interface {}",
    str: "string",
    bool: "bool",
    int: "int64",
    float: "float64",
}

JSON_NAMES: dict[type, str] = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
}


def type_name(value: Any) -> str:
    """Name the Go type that a JSON value decodes to."""
    return TYPE_NAMES.get(type(value), "%!s(<nil>)")


def value_text(value: Any) -> str:
    """Print a JSON value as Go's `%v` does: `map[a:1 b:[x y]]`."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case float():
            return _float_text(value)
        case int():
            return str(value) if _LEAST <= value <= _MOST else _float_text(float(value))
        case dict():
            return "map[" + " ".join(f"{key}:{value_text(value[key])}" for key in sorted(value)) + "]"
        case list():
            return "[" + " ".join(value_text(item) for item in value) + "]"
    return str(value)


def source_text(value: Any) -> str:
    """Print a JSON value as Go's `%#v` does: `map[string]interface {}{"a":1}`. Numbers count as floats."""
    match value:
        case None:
            return "interface {}(nil)"
        case str():
            return quote(value)
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _float_text(float(value))
        case dict():
            return (
                f"{TYPE_NAMES[dict]}{{" + ", ".join(f"{quote(k)}:{source_text(value[k])}" for k in sorted(value)) + "}"
            )
        case list():
            return f"{TYPE_NAMES[list]}{{{', '.join(map(source_text, value))}}}"
    return str(value)


def string_verb(value: Any) -> str:
    """Print a JSON value as Go's `%s` does: other scalars than strings are marked as wrong."""
    match value:
        case str():
            return value
        case None:
            return "%!s(<nil>)"
        case dict():
            return "map[" + " ".join(f"{key}:{string_verb(value[key])}" for key in sorted(value)) + "]"
        case list():
            return "[" + " ".join(string_verb(item) for item in value) + "]"
    return f"%!s({type_name(value)}={value_text(value)})"


def _float_text(value: float) -> str:
    """Print the shortest digits that read back the same, with an exponent from 1e+06 and below 1e-4."""
    number = Decimal(repr(value)).normalize()
    if number == 0:
        return "-0" if number.is_signed() else "0"
    exponent = number.adjusted()
    if -4 <= exponent < 6:
        return format(number, "f")
    sign, digits, _ = number.as_tuple()
    mantissa = "".join(map(str, digits))
    point = f".{mantissa[1:]}" if len(mantissa) > 1 else ""
    return f"{'-' if sign else ''}{mantissa[0]}{point}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
