"""Moments in RFC 3339: to the second as metadata has them, to the microsecond as leases and events have them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from pilothouse.kinds.durations import go_quote

__all__ = [
    "TimeError",
    "canonical_micros",
    "canonical_seconds",
    "format_micros",
    "format_seconds",
    "parse",
    "parse_micros",
]

_SECONDS_LAYOUT: Final = "2006-01-02T15:04:05Z07:00"
_MICROS_LAYOUT: Final = "2006-01-02T15:04:05.000000Z07:00"
_MICRO_DIGITS: Final = 6
_ZONE_LENGTH: Final = len("+07:00")
_LAST_ZONE_HOUR: Final = 24
_LAST_ZONE_MINUTE: Final = 60
_COMMON: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z").fullmatch
_DIGITS: Final = re.compile("[0-9]*")
_YEAR: Final = re.compile("[0-9]{4}").fullmatch
_MEMO: Final = 4096
_MEMO_LENGTH: Final = 64
"""Characters of the longest text remembered, so that hostile ones do not fill memory."""
_ZERO: Final = datetime(1, 1, 1, tzinfo=UTC)


class TimeError(ValueError):
    """A text is no moment. The message is Go's own."""


class _Reader:
    """Reads a moment part by part, so that the error can say which part is wrong, as Go does."""

    def __init__(self, value: str, layout: str) -> None:
        self.whole: Final = value
        self.layout: Final = layout
        self.rest = value

    def bad(self, part: str, held: str) -> TimeError:
        return TimeError(
            f"parsing time {go_quote(self.whole)} as {go_quote(self.layout)}: "
            f"cannot parse {go_quote(held)} as {go_quote(part)}"
        )

    def out_of_range(self, part: str) -> TimeError:
        return TimeError(f"parsing time {go_quote(self.whole)}: {part} out of range")

    def skip(self, sign: str) -> None:
        if not self.rest.startswith(sign):
            raise self.bad(sign, self.rest)
        self.rest = self.rest[1:]

    def year(self) -> int:
        digits = self.rest[:4]
        if not _YEAR(digits):
            raise self.bad("2006", self.rest)
        self.rest = self.rest[4:]
        return int(digits)

    def number(self, part: str, low: int, high: int, name: str, *, short: bool = False) -> int:
        """Read two digits, or one where Go takes one; a name of nothing leaves the range for later."""
        found = _DIGITS.match(self.rest)
        digits = found[0][:2] if found else ""
        if len(digits) < (1 if short else 2):
            raise self.bad(part, self.rest)
        self.rest = self.rest[len(digits) :]
        if name and not low <= int(digits) <= high:
            raise self.out_of_range(name)
        return int(digits)

    def fraction(self) -> int:
        """Read what follows a point or comma after the seconds, if there is anything; gives microseconds."""
        if not self.rest.startswith((".", ",")):
            return 0
        found = _DIGITS.match(self.rest, 1)
        digits = found[0] if found else ""
        if digits:
            self.rest = self.rest[1 + len(digits) :]
        return int(digits[:_MICRO_DIGITS].ljust(_MICRO_DIGITS, "0"))

    def six_digits(self) -> int:
        """Read the fraction where the layout wants six digits of it."""
        held, digits = self.rest, self.rest[1 : _MICRO_DIGITS + 1]
        if not held.startswith((".", ",")) or not re.fullmatch(f"[0-9]{{{_MICRO_DIGITS}}}", digits):
            raise self.bad(".000000", held)
        self.rest = held[_MICRO_DIGITS + 1 :]
        return int(digits)

    def zone(self) -> timedelta:
        if self.rest.startswith("Z"):
            self.rest = self.rest[1:]
            return timedelta()
        held = self.rest
        if len(held) < _ZONE_LENGTH or held[3] != ":":
            raise self.bad("Z07:00", held)
        self.rest = held[_ZONE_LENGTH:]
        hours, minutes = held[1:3], held[4:_ZONE_LENGTH]
        digits = [int(text) if re.fullmatch("[0-9]{2}", text) else None for text in (hours, minutes)]
        if (digits[0] or 0) > _LAST_ZONE_HOUR:
            raise self.out_of_range("time zone offset hour")
        if digits[0] is not None and (digits[1] or 0) > _LAST_ZONE_MINUTE:
            raise self.out_of_range("time zone offset minute")
        if digits[0] is None or digits[1] is None or held[0] not in "+-":
            raise self.bad("Z07:00", held)
        offset = timedelta(hours=digits[0], minutes=digits[1])
        return -offset if held[0] == "-" else offset

    def read(self, *, micros: bool) -> datetime:
        year = self.year()
        self.skip("-")
        month = self.number("01", 1, 12, "month")
        self.skip("-")
        day = self.number("02", 0, 99, "")
        self.skip("T")
        hour = self.number("15", 0, 23, "hour", short=True)
        self.skip(":")
        minute = self.number("04", 0, 59, "minute")
        self.skip(":")
        second = self.number("05", 0, 59, "second")
        fraction = self.six_digits() if micros else self.fraction()
        offset = self.zone()
        if self.rest:
            raise TimeError(f"parsing time {go_quote(self.whole)}: extra text: {go_quote(self.rest)}")
        try:
            return datetime(year, month, day, hour, minute, second, fraction, tzinfo=UTC) - offset
        except OverflowError:
            raise self.out_of_range("year") from None
        except ValueError:
            raise self.out_of_range("day" if year else "year") from None


def _read(text: str) -> datetime:
    if _COMMON(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    return _Reader(text, _SECONDS_LAYOUT).read(micros=False)


_remembered: Final = lru_cache(maxsize=_MEMO)(_read)


def parse(text: str) -> datetime:
    """Read a moment with or without a fraction and give it in UTC, to the microsecond.

    Raises TimeError as `time.Parse(time.RFC3339, ...)` words it; also for years before 1 and after 9999 in UTC.
    """
    return _remembered(text) if len(text) <= _MEMO_LENGTH else _read(text)


def parse_micros(text: str) -> datetime:
    """Read a moment with six digits after the point, as `MicroTime` wants, and give it in UTC. Raises TimeError."""
    return _Reader(text, _MICROS_LAYOUT).read(micros=True)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        msg = f"moment {moment!r} has no time zone; give it one, best UTC"
        raise ValueError(msg)
    return moment.astimezone(UTC).replace(tzinfo=None)


def format_seconds(moment: datetime) -> str:
    """Write an aware moment in UTC to the second, dropping the rest. Raises ValueError for a naive one."""
    return _utc(moment).isoformat(timespec="seconds") + "Z"


def format_micros(moment: datetime) -> str:
    """Write an aware moment in UTC to the microsecond. Raises ValueError for a naive one."""
    return _utc(moment).isoformat(timespec="microseconds") + "Z"


def canonical_seconds(text: str) -> str | None:
    """Give the text that a server stores for a `Time` that a client sent, none for the first moment of year 1.

    Raises TimeError.
    """
    moment = parse(text)
    return None if moment == _ZERO else format_seconds(moment)


def canonical_micros(text: str) -> str | None:
    """Give the text that a server stores for a `MicroTime` that a client sent, none for the first moment of year 1.

    Raises TimeError.
    """
    moment = parse_micros(text)
    return None if moment == _ZERO else format_micros(moment)
