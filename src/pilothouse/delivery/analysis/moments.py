"""Times of expressions: `date("2026-01-02 15:04:05")`, in layouts as Go writes them, and `duration("5m")`. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pilothouse.kinds import durations

__all__ = ["moment", "span"]

_LAYOUTS: Final = (
    "2006-01-02",
    "15:04:05",
    "2006-01-02 15:04:05",
    "2006-01-02T15:04:05Z07:00",
    "02 Jan 06 15:04 MST",
    "Monday, 02-Jan-06 15:04:05 MST",
    "Mon, 02 Jan 2006 15:04:05 MST",
)
"""Those that are tried where an expression names none."""
_PARTS: Final = {
    "2006": "%Y",
    "January": "%B",
    "Monday": "%A",
    "Jan": "%b",
    "Mon": "%a",
    "MST": "%Z",
    "Z07:00": "%z",
    "-07:00": "%z",
    "-0700": "%z",
    "PM": "%p",
    "01": "%m",
    "02": "%d",
    "03": "%I",
    "04": "%M",
    "05": "%S",
    "06": "%y",
    "15": "%H",
    "_2": "%d",
    "1": "%m",
    "2": "%d",
    "3": "%I",
    "4": "%M",
    "5": "%S",
}
_PART: Final = re.compile("|".join(map(re.escape, _PARTS)))
_FRACTION: Final = re.compile(r"(:\d\d)\.\d+")


def moment(text: str, layout: str = "", zone: str = "") -> datetime:
    """Read a time, in a layout as Go writes them or one of the usual; UTC where nothing says another zone.

    Raises ValueError for a text that is none.
    """
    try:
        beside = ZoneInfo(zone) if zone else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone '{zone}'") from None
    for each in (layout,) if layout else _LAYOUTS:
        try:
            # A fraction of a second may follow whatever the layout says, as in Go; no query needs it.
            found = datetime.strptime(_FRACTION.sub(r"\1", text), _format(each))  # noqa: DTZ007  # its zone comes below
        except ValueError:
            continue
        return (found if found.tzinfo is not None else found.replace(tzinfo=beside)).astimezone(UTC)
    wanted = f"the layout '{layout}'" if layout else "any layout that is known, such as 2006-01-02 15:04:05"
    raise ValueError(f"'{text}' is no time in {wanted}")


def _format(layout: str) -> str:
    return _PART.sub(lambda part: _PARTS[part[0]], layout.replace("%", "%%"))


def span(text: str) -> timedelta:
    """Read a span of time such as `1h30m`, to the microsecond. Raises ValueError."""
    return timedelta(microseconds=durations.parse(text) // durations.MICROSECOND)
