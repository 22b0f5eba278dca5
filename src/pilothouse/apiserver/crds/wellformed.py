"""Sees to it that a schema has the shape of one, whoever wrote it: keywords of the right types, nulls left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MAX_DEPTH", "well_formed"]

MAX_DEPTH = 100
_TEXTS = frozenset(
    {
        *("type", "format", "pattern", "description", "title", "id", "$schema", "$ref"),
        *("x-kubernetes-list-type", "x-kubernetes-map-type"),
    }
)
_FLAGS = frozenset(
    {
        *("nullable", "uniqueItems", "exclusiveMaximum", "exclusiveMinimum", "x-kubernetes-preserve-unknown-fields"),
        *("x-kubernetes-embedded-resource", "x-kubernetes-int-or-string"),
    }
)
_COUNTS = frozenset({"maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"})
_NUMBERS = frozenset({"maximum", "minimum", "multipleOf"})
_NAMES = frozenset({"required", "x-kubernetes-list-map-keys"})
_SCHEMA_LISTS = frozenset({"allOf", "anyOf", "oneOf"})
_SCHEMA_MAPS = frozenset({"properties", "patternProperties", "definitions"})
_OPEN = frozenset({"default", "example"})
_RULE_TEXTS = frozenset({"rule", "message", "messageExpression", "reason", "fieldPath"})


def well_formed(schema: Any, at: str = "schema", depth: int = 0) -> dict[str, Any]:
    """Return a schema without nulls, copied as far as schemas go. Raises ValueError for what is none; it says where."""
    if schema is None:
        return {}
    if not isinstance(schema, Mapping):
        raise _wrong(at, "an object", schema)
    if depth > MAX_DEPTH:
        raise ValueError(f"the schema nests deeper than {MAX_DEPTH} levels")
    return {
        name: _part(name, value, f"{at}.{name}", depth + 1)
        for name, value in schema.items()
        if value is not None or name in _OPEN
    }


def _wrong(at: str, wanted: str, found: Any) -> ValueError:
    return ValueError(f"{at} must be {wanted}, not {type(found).__name__}")


def _want(value: Any, kind: type | tuple[type, ...], at: str, wanted: str) -> Any:
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise _wrong(at, wanted, value)


def _part(name: str, value: Any, at: str, depth: int) -> Any:
    if name in _TEXTS:
        return _want(value, str, at, "a string")
    if name in _FLAGS:
        return _want(value, bool, at, "a boolean")
    if name in _COUNTS:
        return _want(value, int, at, "an integer")
    if name in _NUMBERS:
        return _want(value, (int, float), at, "a number")
    if name in _NAMES:
        return [_want(each, str, at, "a list of strings") for each in _want(value, list, at, "a list")]
    return _compound(name, value, at, depth)


def _compound(name: str, value: Any, at: str, depth: int) -> Any:
    if name in _SCHEMA_LISTS:
        found = _want(value, list, at, "a list")
        return [well_formed(each, f"{at}[{position}]", depth) for position, each in enumerate(found)]
    if name in _SCHEMA_MAPS:
        parts = _want(value, Mapping, at, "an object")
        return {key: well_formed(each, f"{at}[{key}]", depth) for key, each in parts.items()}
    if name == "not" or (name in {"items", "additionalProperties"} and isinstance(value, Mapping)):
        return well_formed(value, at, depth)
    if name == "additionalProperties":
        return _want(value, bool, at, "a schema or a boolean")
    if name == "items":
        return _want(value, list, at, "a schema")
    if name == "enum":
        return _want(value, list, at, "a list")
    if name == "x-kubernetes-validations":
        return [_rule(each, at) for each in _want(value, list, at, "a list")]
    return value


def _rule(value: Any, at: str) -> dict[str, Any]:
    found = _want(value, Mapping, at, "a list of rules")
    made = {name: each for name, each in found.items() if each is not None}
    for name, each in made.items():
        if name in _RULE_TEXTS:
            _want(each, str, f"{at}.{name}", "a string")
        elif name == "optionalOldSelf":
            _want(each, bool, f"{at}.{name}", "a boolean")
    return made
