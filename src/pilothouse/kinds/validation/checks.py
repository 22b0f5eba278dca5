"""Checks that many kinds share: numbers, choices, ports, percentages, paths, and what may not change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path

__all__ = [
    "IMMUTABLE",
    "SPEC",
    "Object",
    "immutable",
    "int_or_percent",
    "items",
    "name",
    "no_backsteps",
    "non_negative",
    "not_above_100_percent",
    "one_of",
    "percent_or_number",
    "port",
    "positive",
    "required",
    "token_lifetime",
]

Object = dict[str, Any]
NameRule = Callable[[str], Sequence[str]]

SPEC = Path("spec")
IMMUTABLE = "field is immutable"
_TOKEN_MINIMUM, _TOKEN_MAXIMUM = 600, 1 << 32


def items(part: Object, field: str) -> Sequence[Any]:
    """Return the list in a field, empty where it is missing or null."""
    return part.get(field) or ()


def required(errors: ErrorList, at: Path, part: Object, field: str) -> bool:
    """Want a field that is neither missing nor empty."""
    if part.get(field):
        return True
    errors.required(at.child(field))
    return False


def name(errors: ErrorList, at: Path, value: str, rule: NameRule) -> None:
    """Want a value that follows a rule of `names`."""
    for message in rule(value):
        errors.invalid(at, value, message)


def non_negative(errors: ErrorList, at: Path, part: Object, *fields: str) -> None:
    """Want numbers that are not below zero, where they are given."""
    for field in fields:
        value = part.get(field)
        if value is not None and value < 0:
            errors.invalid(at.child(field), value, "must be greater than or equal to 0")


def positive(errors: ErrorList, at: Path, value: int) -> None:
    """Want a number above zero."""
    if value <= 0:
        errors.invalid(at, value, "must be greater than 0")


def one_of(errors: ErrorList, at: Path, part: Object, field: str, values: Iterable[str]) -> None:
    """Want a field that has one of the values, which errors list in the order given; an empty one is missing."""
    value = part.get(field)
    if not value:
        errors.required(at.child(field))
    elif value not in values:
        errors.not_supported(at.child(field), value, values)


def port(errors: ErrorList, at: Path, value: int | str) -> None:
    """Want the number or the name of a port."""
    messages = names.port_number(value) if isinstance(value, int) else names.port_name(value)
    for message in messages:
        errors.invalid(at, value, message)


def int_or_percent(errors: ErrorList, at: Path, value: int | str) -> None:
    """Want a number that is not below zero, or a percentage."""
    if isinstance(value, str):
        name(errors, at, value, names.percent)
    elif value < 0:
        errors.invalid(at, value, "must be greater than or equal to 0")


def percent_or_number(value: int | str) -> int:
    """Return the number of a percentage or the number itself; 0 for other text."""
    if isinstance(value, str):
        return 0 if names.percent(value) else int(value[:-1])
    return value


def not_above_100_percent(errors: ErrorList, at: Path, value: int | str) -> None:
    """Want a percentage of 100 at most; numbers pass."""
    if isinstance(value, str) and percent_or_number(value) > 100:
        errors.invalid(at, value, "must not be greater than 100%")


def no_backsteps(errors: ErrorList, at: Path, path: str) -> None:
    """Want a file path without `..`."""
    if ".." in path.split("/"):
        errors.invalid(at, path, "must not contain '..'")


def immutable(errors: ErrorList, at: Path, new: Any, old: Any, shown: Any = None) -> None:
    """Want a value that did not change; `shown` is what the error shows in place of the new value."""
    if new != old:
        errors.invalid(at, new if shown is None else shown, IMMUTABLE)


def token_lifetime(errors: ErrorList, at: Path, seconds: int | None) -> None:
    """Want how long a token lives: ten minutes at least and 2^32 seconds at most, where it is given."""
    if seconds is not None and seconds < _TOKEN_MINIMUM:
        errors.invalid(at, seconds, "may not specify a duration less than 10 minutes")
    if seconds is not None and seconds > _TOKEN_MAXIMUM:
        errors.invalid(at, seconds, "may not specify a duration larger than 2^32 seconds")
