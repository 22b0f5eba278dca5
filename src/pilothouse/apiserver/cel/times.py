"""Timestamps and durations: reading them, and their parts in a time zone."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Callable
from typing import Any

from pilothouse.apiserver.cel.declarations import Functions
from pilothouse.apiserver.cel.errors import CelError
from pilothouse.apiserver.cel.values import Duration, Timestamp
from pilothouse.kinds import durations

__all__ = ["TIMES", "parse_duration", "parse_timestamp"]

TIMES = Functions()
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)")
_OFFSET = re.compile(r"([+-]?)(\d\d):(\d\d)")
_SECOND = 1_000_000_000


def parse_timestamp(text: str) -> Timestamp:
    """Read an RFC 3339 time. Raises CelError."""
    match = _RFC3339.fullmatch(text)
    if match is not None:
        try:
            moment = dt.datetime.fromisoformat(f"{match[1]}T{match[2]}{match[4].replace('Z', '+00:00')}")
            return Timestamp.of(moment, int((match[3] or "0")[:9].ljust(9, "0")))
        except (ValueError, OverflowError):
            pass
    raise CelError(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}" as "2006"')


def parse_duration(text: str) -> Duration:
    """Read a duration as Go writes it (`1h30m`). Raises CelError."""
    try:
        return Duration(durations.parse(text))
    except durations.DurationError as error:
        raise CelError(str(error)) from None


def _zone(name: str) -> dt.tzinfo:
    if match := _OFFSET.fullmatch(name):
        minutes = int(match[2]) * 60 + int(match[3])
        if minutes < 24 * 60:
            return dt.timezone(dt.timedelta(minutes=-minutes if match[1] == "-" else minutes))
    if name in {"", "UTC"}:
        return dt.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise CelError(f"unknown time zone {name}") from None


_PARTS: dict[str, Callable[[dt.datetime], int]] = {
    "getFullYear": lambda moment: moment.year,
    "getMonth": lambda moment: moment.month - 1,
    "getDayOfYear": lambda moment: moment.timetuple().tm_yday - 1,
    "getDayOfMonth": lambda moment: moment.day - 1,
    "getDate": lambda moment: moment.day,
    "getDayOfWeek": lambda moment: moment.isoweekday() % 7,
    "getHours": lambda moment: moment.hour,
    "getMinutes": lambda moment: moment.minute,
    "getSeconds": lambda moment: moment.second,
    "getMilliseconds": lambda moment: moment.microsecond // 1000,
}
_UNITS = {"getHours": 3600 * _SECOND, "getMinutes": 60 * _SECOND, "getSeconds": _SECOND}


def _whole(ns: int, unit: int) -> int:
    return ns // unit if ns >= 0 else -(-ns // unit)


def _part(read: Callable[[dt.datetime], int]) -> Callable[..., Any]:
    return lambda moment, zone="UTC": read(moment.at(_zone(zone)))


for _name, _read in _PARTS.items():
    TIMES.add(_name, _part(_read), "timestamp @ -> int", "timestamp @ string -> int")
for _name, _unit in _UNITS.items():
    TIMES.add(_name, lambda length, unit=_unit: _whole(length.ns, unit), "duration @ -> int")
TIMES.add("getMilliseconds", lambda length: _whole(length.ns, 1_000_000), "duration @ -> int")
