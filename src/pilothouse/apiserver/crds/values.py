"""Types of JSON values, numbers, and equality, as schema validation sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilothouse.apiserver.cel.values import equal

__all__ = ["INT32", "INT64", "is_whole", "json_type", "matches_enum", "same"]

INT32 = (-(1 << 31), (1 << 31) - 1)
INT64 = (-(1 << 63), (1 << 63) - 1)
_TYPES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}
_LARGEST_EXACT = float(1 << 53)


def json_type(value: Any) -> str:
    """Return the type of a value as schemas name it."""
    return _TYPES.get(type(value), "object")


def is_whole(value: float) -> bool:
    """Whether a number has no fraction and is within what a float holds exactly."""
    return isinstance(value, int) or (abs(value) <= _LARGEST_EXACT and value.is_integer())


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal, true and 1 told apart."""
    return left is right or equal(left, right)


def matches_enum(allowed: Sequence[Any], value: Any) -> bool:
    """Whether a value is one of those allowed."""
    return any(equal(each, value) for each in allowed)
