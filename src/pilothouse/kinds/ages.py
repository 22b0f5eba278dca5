"""How long ago something was, the way people read it: `5m`, `3d4h`, `2y10d`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from pilothouse.kinds.times import TimeError, parse

__all__ = ["INVALID", "UNKNOWN", "Ages", "human_duration", "short_human_duration"]

INVALID: Final = "<invalid>"
UNKNOWN: Final = "<unknown>"

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24
_YEAR: Final = 365 * _DAY
_ALMOST_NOW: Final = -1
"""Seconds by which another machine's clock may be ahead without being wrong."""


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def human_duration(seconds: float) -> str:
    """Write a span of seconds with two to three significant figures."""
    whole = int(seconds)
    if whole < 0:
        return INVALID if whole < _ALMOST_NOW else "0s"
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _pair(whole // _MINUTE, "m", whole % _MINUTE, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    hours = whole // _HOUR
    if hours < 8:
        return _pair(hours, "h", whole // _MINUTE % 60, "m")
    if hours < 2 * _DAY:
        return f"{hours}h"
    if hours < 8 * _DAY:
        return _pair(hours // _DAY, "d", hours % _DAY, "h")
    if hours < 2 * _YEAR:
        return f"{hours // _DAY}d"
    if hours < 8 * _YEAR:
        return _pair(hours // _YEAR, "y", hours // _DAY % 365, "d")
    return f"{hours // _YEAR}y"


def short_human_duration(seconds: float) -> str:
    """Write a span of seconds in its largest unit alone."""
    whole = int(seconds)
    if whole < 0:
        return INVALID if whole < _ALMOST_NOW else "0s"
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m"
    hours = whole // _HOUR
    if hours < _DAY:
        return f"{hours}h"
    return f"{hours // _DAY}d" if hours < _YEAR else f"{hours // _YEAR}y"


class Ages:
    """Tells ages as of one moment.

    now: aware, in any zone.
    """

    __slots__ = ("_now", "_second")

    def __init__(self, now: datetime) -> None:
        self._now: Final = now.astimezone(UTC)
        self._second: Final = timedelta(seconds=1)

    def since(self, moment: str | None) -> str:
        """Return how long ago a moment in RFC 3339 was; `<unknown>` without one."""
        if not moment:
            return UNKNOWN
        try:
            # the fast way of the two; the other knows all that Kubernetes takes
            then = datetime.fromisoformat(moment)
            gone = (self._now - then) / self._second
        except (ValueError, TypeError):
            try:
                gone = (self._now - parse(moment)) / self._second
            except TimeError:
                return INVALID
        return human_duration(gone)
