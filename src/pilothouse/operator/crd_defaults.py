"""The defaults of a class as JSON has them, and whether they fit what the schema allows."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from pilothouse.operator.crd_hints import Place

__all__ = ["check_default", "json_default", "plain_json"]

_COUNTED: Final = ((str, "Length"), (list, "Items"), (dict, "Properties"))


def json_default(info: msgspec.structs.FieldInfo, place: Place) -> Any:
    """Return the default of a field; None where it has none. Raises DefinitionError for one that changes."""
    if info.default_factory is msgspec.NODEFAULT:
        missing = info.default is msgspec.NODEFAULT or info.default is msgspec.UNSET
        return None if missing else _in_order(info.default)
    found = _in_order(info.default_factory())
    if found != _in_order(info.default_factory()):
        raise place.error("its default is another each time; set it where objects are made, and write Default(None)")
    return found


def _in_order(value: Any) -> Any:
    """Give JSON of a default, in which the elements of a set have an order."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_hook, order="deterministic"))


def plain_json(value: Any) -> Any:
    """Give the same as JSON has it, of which nothing is shared."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_hook))


def _hook(value: Any) -> Any:
    """Give msgspec what stands for an absent text, number or bytes as that."""
    if isinstance(value, str):
        return "".join(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"a {type(value).__qualname__} has no form in JSON")


def check_default(schema: dict[str, Any], value: Any, place: Place) -> None:
    """Refuse a default that objects could not have. Raises DefinitionError."""
    if (enum := schema.get("enum")) is not None and value not in enum:
        raise place.error(f"its default {value!r} is none of {', '.join(map(repr, enum))}")
    if problem := _number(schema, value) or _length(schema, value):
        raise place.error(f"its default {value!r} {problem}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        raise place.error(f"its default {value!r} does not match {schema['pattern']}")


def _number(schema: dict[str, Any], value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value < low or (schema.get("exclusiveMinimum") and value == low)):
        return f"is below the minimum {low}"
    if high is not None and (value > high or (schema.get("exclusiveMaximum") and value == high)):
        return f"is above the maximum {high}"
    return ""


def _length(schema: dict[str, Any], value: Any) -> str:
    words = next((word for kind, word in _COUNTED if isinstance(value, kind)), None)
    if words is None:
        return ""
    if len(value) < schema.get(f"min{words}", 0):
        return f"is shorter than {schema[f'min{words}']}"
    if len(value) > schema.get(f"max{words}", len(value)):
        return f"is longer than {schema[f'max{words}']}"
    return ""
