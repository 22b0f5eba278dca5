"""Spans of time as Go writes them: `1h30m`, `250ms`. Values are whole nanoseconds."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

__all__ = [
    "HOUR",
    "MICROSECOND",
    "MILLISECOND",
    "MINUTE",
    "SECOND",
    "DurationError",
    "format_duration",
    "go_quote",
    "parse",
]

MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
_UNITS: Final = {
    "ns": 1,
    "us": MICROSECOND,
    "\u00b5s": MICROSECOND,
    "\u03bcs": MICROSECOND,
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^.0-9]*)")
_LIMIT: Final = 2**63
_LARGEST_FRACTION: Final = (2**63 - 1) // 10
_MEMO: Final = 2048
_MEMO_LENGTH: Final = 64
"""Characters of the longest text remembered, so that hostile ones do not fill memory."""


class DurationError(ValueError):
    """A text is no duration. The message is Go's own."""


def _hex(character: str) -> str:
    if character < " " or character >= "\x80":
        return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "replace"))
    return "\\" + character if character in '"\\' else character


def go_quote(text: str) -> str:
    """Quote as Go's package time does, with the bytes of what is not printable ASCII in hexadecimal."""
    return '"' + "".join(map(_hex, text)) + '"'


def _fraction(digits: str) -> tuple[int, float]:
    """Give digits after the point as a number and its scale; what no longer fits is dropped."""
    number, scale = 0, 1.0
    for digit in digits:
        if number > _LARGEST_FRACTION or number * 10 + int(digit) > _LIMIT:
            break
        number = number * 10 + int(digit)
        scale *= 10
    return number, scale


def _amount(whole: str, part: str, unit: int) -> int | None:
    number = int(whole or "0")
    if number > _LIMIT // unit:
        return None
    total = number * unit
    if part:
        fraction, scale = _fraction(part)
        # in binary floating point as Go does it, so that the last digit agrees
        total += int(float(fraction) * (float(unit) / scale))
    return total if total <= _LIMIT else None


def _read(text: str) -> int:
    invalid = f"time: invalid duration {go_quote(text)}"
    rest = text[1:] if text.startswith(("-", "+")) else text
    if rest == "0":
        return 0
    if not rest:
        raise DurationError(invalid)
    total = _sum(rest, text, invalid)
    if text.startswith("-"):
        return -total
    if total == _LIMIT:
        raise DurationError(invalid)
    return total


def _sum(rest: str, text: str, invalid: str) -> int:
    """Add up numbers with units."""
    total = position = 0
    while position < len(rest):
        found = _PART.match(rest, position)
        if found is None or not (found[1] or found[2]):
            raise DurationError(invalid)
        if len(found[1].lstrip("0")) > len(str(_LIMIT)) or int(found[1] or "0") > _LIMIT:
            raise DurationError(invalid)
        if not found[3]:
            raise DurationError(f"time: missing unit in duration {go_quote(text)}")
        if found[3] not in _UNITS:
            raise DurationError(f"time: unknown unit {go_quote(found[3])} in duration {go_quote(text)}")
        amount = _amount(found[1], found[2] or "", _UNITS[found[3]])
        total += amount or 0
        if amount is None or total > _LIMIT:
            raise DurationError(invalid)
        position = found.end()
    return total


_remembered: Final = lru_cache(maxsize=_MEMO)(_read)


def parse(text: str) -> int:
    """Read a duration: a sign, then numbers with units (`ns`, `us`, `ms`, `s`, `m`, `h`); gives nanoseconds.

    Raises DurationError as `time.ParseDuration` words it.
    """
    return _remembered(text) if len(text) <= _MEMO_LENGTH else _read(text)


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


def format_duration(nanoseconds: int) -> str:
    """Write a duration as `time.Duration` prints it: `1h30m0s`, `1.5ms`, `0s`."""
    sign, amount = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if amount < SECOND:
        if not amount:
            return "0s"
        unit, name = (1, "ns") if amount < MICROSECOND else (MICROSECOND, "\u00b5s")
        if amount >= MILLISECOND:
            unit, name = MILLISECOND, "ms"
        return f"{sign}{_decimal(amount, unit)}{name}"
    minutes, rest = divmod(amount, MINUTE)
    text = f"{_decimal(rest, SECOND)}s"
    if not minutes:
        return sign + text
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}h{minutes}m{text}" if hours else f"{sign}{minutes}m{text}"
