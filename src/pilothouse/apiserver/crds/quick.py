"""Says in one go whether a value is right: one closure for each node, made once. It may say no too often, never yes.

What it does not pass is checked with care by `checking`, which finds the words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pilothouse.apiserver.cel.regex import PatternError, compile_pattern, found
from pilothouse.apiserver.crds.checking import check
from pilothouse.apiserver.crds.formats import string_format
from pilothouse.apiserver.crds.listtypes import check_list_types
from pilothouse.apiserver.crds.structural import Node
from pilothouse.apiserver.crds.values import INT32, INT64
from pilothouse.kinds.fielderrors import ErrorList, Path

__all__ = ["quick"]

Check = Callable[[Any], bool]


def _always(_: Any) -> bool:
    return True


def quick(node: Node) -> Check:
    """Return what checks a value against a node, the uniqueness of sets and maps in it included."""
    if node.one_of or node.negated is not None:
        # Here a careless no would be a yes.
        return lambda value: check(node, value).valid
    made = _of_type(node)
    if node.enum:
        made = _enum(node, made)
    if node.all_of or node.any_of:
        made = _conditions(node, made)
    if node.nullable and not node.enum:
        inner = made
        return lambda value: value is None or inner(value)
    return made


def _conditions(node: Node, made: Check) -> Check:
    if node.int_or_string and [part.raw for part in node.any_of] == _INT_OR_STRING and not node.all_of:
        return made
    every = [made, *map(quick, node.all_of)]
    some = [*map(quick, node.any_of)]

    def good(value: Any) -> bool:
        return all(each(value) for each in every) and (not some or any(each(value) for each in some))

    return good


def _enum(node: Node, made: Check) -> Check:
    if all(type(each) is str for each in node.enum):
        allowed = frozenset(node.enum)
        return lambda value: type(value) is str and value in allowed and made(value)
    return lambda value: check(node, value).valid


def _of_type(node: Node) -> Check:
    match node.types:
        case ("string",):
            return _string(node)
        case ("integer",):
            return _integer(node)
        case ("boolean",):
            return lambda value: value is True or value is False
        case ("array",) if node.items is not None:
            return _list(node, node.items)
        case ("object",):
            return _object(node)
        case ("integer", "string") if not any(name in node.raw for name in _BOUNDS):
            low, high = INT64
            return lambda value: type(value) is str or (type(value) is int and low <= value <= high)
        case () if _unbound(node):
            return _always
    return lambda value: check(node, value).valid


def _unbound(node: Node) -> bool:
    """Whether a node without a type says nothing about values."""
    nested = node.properties or node.items is not None or node.additional is not None
    return not (nested or node.required or node.enum or node.format or any(name in node.raw for name in _BOUNDS))


_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_BOUNDS = frozenset(
    {
        *("maximum", "minimum", "multipleOf", "maxLength", "minLength", "pattern", "maxItems", "minItems"),
        *("maxProperties", "minProperties", "exclusiveMaximum", "exclusiveMinimum"),
    }
)


def _string(node: Node) -> Check:
    most, least, pattern = node.get("maxLength"), node.get("minLength"), node.get("pattern")
    rule = string_format(node.format) if node.format else None
    if most is None and not least and not pattern and rule is None:
        return lambda value: type(value) is str
    if pattern:
        try:
            compile_pattern(pattern)
        except PatternError:
            return lambda value: False
    low, high = least or 0, float("inf") if most is None else most

    def good(value: Any) -> bool:
        return (
            type(value) is str
            and low <= len(value) <= high
            and (not pattern or found(pattern, value))
            and (rule is None or rule(value))
        )

    return good


def _integer(node: Node) -> Check:
    low, high = INT32 if node.format == "int32" else INT64
    if node.get("multipleOf") is not None:
        return lambda value: check(node, value).valid
    if (least := node.get("minimum")) is not None:
        low = max(low, int(least) + bool(node.get("exclusiveMinimum")))
    if (most := node.get("maximum")) is not None:
        high = min(high, int(most) - bool(node.get("exclusiveMaximum")))
    return lambda value: type(value) is int and low <= value <= high


def _list(node: Node, items: Node) -> Check:
    inner = quick(items)
    low, most = node.get("minItems") or 0, node.get("maxItems")
    high = float("inf") if most is None else most
    if node.list_type not in {"set", "map"}:
        return lambda value: type(value) is list and low <= len(value) <= high and all(map(inner, value))
    unique = _unique_by(node.list_keys[0]) if len(node.list_keys) == 1 else _unique(node)

    def good(value: Any) -> bool:
        if type(value) is not list or not low <= len(value) <= high or not all(map(inner, value)):
            return False
        return len(value) < 2 or unique(value)

    return good


def _unique_by(key: str) -> Check:
    def unique(value: list[Any]) -> bool:
        try:
            return len({item[key] for item in value}) == len(value)
        except (KeyError, TypeError):
            return False

    return unique


def _unique(node: Node) -> Check:
    def unique(value: list[Any]) -> bool:
        errors = ErrorList()
        check_list_types(node, value, Path(), errors)
        return not errors

    return unique


def _object(node: Node) -> Check:
    parts = {name: quick(part) for name, part in node.properties.items()}
    required = frozenset(node.required)
    low, most = node.get("minProperties") or 0, node.get("maxProperties")
    high = float("inf") if most is None else most
    bounded = bool(low) or most is not None
    if isinstance(node.additional, Node):
        other: Check | None = quick(node.additional)
    else:
        other = (lambda value: False) if node.additional is False else None

    def good(value: Any) -> bool:
        if type(value) is not dict or (bounded and not low <= len(value) <= high):
            return False
        for name, item in value.items():
            part = parts.get(name, other)
            if part is not None and not part(item):
                return False
        return required <= value.keys()

    return good
