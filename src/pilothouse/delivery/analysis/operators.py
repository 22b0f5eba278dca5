"""The operators and functions of conditions, on numbers, texts, lists, maps, times and spans of time. Pure."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pilothouse.delivery.errors import DeliveryError

from .moments import moment, span

__all__ = ["BINARY", "FUNCTIONS", "ExpressionError", "within"]

_LONGEST: Final = 4096


class ExpressionError(DeliveryError):
    """A condition cannot be read, or does not fit the value that it is asked of."""


def _divide(left: Any, right: Any) -> float:
    """Divide as Expr does: by zero is no error."""
    if right == 0:
        return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)
    return float(left / right)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    return bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def run(left: Any, right: Any) -> bool:
        if isinstance(left, bool) or isinstance(right, bool):
            raise ExpressionError("a truth value has no order")
        return compare(left, right)

    return run


def _numbers(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Refuse all but numbers: a text times a million is no use to anybody."""

    def run(left: Any, right: Any) -> Any:
        for value in (left, right):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ExpressionError(f"{value!r} is no number")
        return function(left, right)

    return run


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return left + right
    if _is_time(left, right):
        return left + right
    return _numbers(operator.add)(left, right)


def _subtract(left: Any, right: Any) -> Any:
    if _is_time(left, right):
        return left - right
    return _numbers(operator.sub)(left, right)


def _multiply(left: Any, right: Any) -> Any:
    numbers = [value for value in (left, right) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == 1 and (isinstance(left, timedelta) or isinstance(right, timedelta)):
        return left * right
    return _numbers(operator.mul)(left, right)


def _is_time(*values: Any) -> bool:
    """Whether all are times or spans of time."""
    return all(isinstance(value, datetime | timedelta) for value in values)


def within(left: Any, right: Any) -> bool:
    """Say whether a list, a text or a map has something; nothing has nothing."""
    return left in right if right is not None else False


BINARY: Final[Mapping[str, tuple[int, Callable[[Any, Any], Any]]]] = {
    "==": (20, _equal),
    "!=": (20, lambda left, right: not _equal(left, right)),
    "<": (20, _ordered(operator.lt)),
    "<=": (20, _ordered(operator.le)),
    ">": (20, _ordered(operator.gt)),
    ">=": (20, _ordered(operator.ge)),
    "in": (20, within),
    "contains": (20, lambda left, right: right in left),
    "startsWith": (20, lambda left, right: left.startswith(right)),
    "endsWith": (20, lambda left, right: left.endswith(right)),
    "..": (25, lambda left, right: list(range(left, min(right + 1, left + _LONGEST)))),
    "+": (30, _add),
    "-": (30, _subtract),
    "*": (60, _multiply),
    "/": (60, _numbers(_divide)),
    "%": (60, _numbers(math.fmod)),
    "^": (100, _numbers(math.pow)),
    "**": (100, _numbers(math.pow)),
}


def _as_int(value: Any) -> int:
    return int(float(value)) if isinstance(value, str) else int(value)


def _default(value: Any, instead: Any) -> Any:
    nothing = value is None or value in ([], {}) or (isinstance(value, float) and math.isnan(value))
    return instead if nothing else value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "asInt": _as_int,
    "asFloat": float,
    "int": _as_int,
    "float": float,
    "string": str,
    "isNaN": lambda value: isinstance(value, float) and math.isnan(value),
    "isInf": lambda value: isinstance(value, float) and math.isinf(value),
    "isNil": lambda value: value is None,
    "default": _default,
    "len": len,
    "abs": abs,
    "min": lambda *values: min(values[0] if len(values) == 1 else values),
    "max": lambda *values: max(values[0] if len(values) == 1 else values),
    "sum": sum,
    "mean": _mean,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "lower": lambda value: value.lower(),
    "upper": lambda value: value.upper(),
    "trim": lambda value: value.strip(),
    "first": lambda values: values[0] if values else None,
    "last": lambda values: values[-1] if values else None,
    "date": moment,
    "duration": span,
    "keys": list,
    "values": lambda found: list(found.values()),
}
