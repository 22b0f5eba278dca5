"""Numbers that may be percentages: `3` or `25%`, as rollouts and disruption budgets have them."""

from __future__ import annotations

import re
from typing import Final

from pilothouse.kinds.fielderrors import quote

__all__ = ["IntOrString", "IntOrStringError", "parse", "scaled", "text"]

IntOrString = int | str

_INTEGER: Final = re.compile("[+-]?[0-9]+").fullmatch
_INT32: Final = range(-(2**31), 2**31)
_INT64: Final = range(-(2**63), 2**63)
_DIGITS: Final = 4000
"""Of a number; reading more would cost much and tell nothing."""


class IntOrStringError(ValueError):
    """A value is neither a number nor a percentage. The message is Kubernetes' own."""


def parse(value: str) -> IntOrString:
    """Read a number of 32 bits, or keep the text."""
    if len(value) <= _DIGITS and _INTEGER(value) and (number := int(value)) in _INT32:
        return number
    return value


def text(value: IntOrString) -> str:
    """Give the number or the text as text."""
    return str(value)


def _atoi(digits: str, shown: str) -> int:
    if not _INTEGER(digits):
        problem = "invalid syntax"
    elif len(digits) > _DIGITS or (number := int(digits)) not in _INT64:
        problem = "value out of range"
    else:
        return number
    raise IntOrStringError(
        f"invalid value for IntOrString: invalid value {quote(shown)}: strconv.Atoi: parsing {quote(digits)}: {problem}"
    )


def scaled(value: IntOrString | None, total: int, *, round_up: bool) -> int:
    """Give the number itself, or the percentage of a total, rounded up or down.

    Raises IntOrStringError for none, for text without `%`, and for text that has no number before it.
    """
    if value is None:
        raise IntOrStringError("nil value for IntOrString")
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        raise IntOrStringError("invalid value for IntOrString: invalid type: string is not a percentage")
    share = _atoi(value[:-1], value) * total
    return -(-share // 100) if round_up else share // 100
