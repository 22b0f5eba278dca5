"""When a cron schedule is due, as Kubernetes has it: five fields or @hourly and the like, by the clock of a time zone.

What other cron libraries add (seconds, `L`, `#`, 7 for Sunday) is refused there, `?` is taken, and where clocks change
they choose other moments: here an hour that is left out has no moments, and one that comes twice has them twice.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pilothouse.kinds import durations
from pilothouse.kinds.validation.cron import ScheduleError, check_schedule

__all__ = ["Every", "Fields", "Schedule", "ScheduleError", "UnknownZone", "schedule", "zone_of"]

_MAX_YEARS: Final = 5
_ZONE: Final = re.compile(r"(?:CRON_)?TZ=(?P<zone>[^ ]*) (?P<rest>.*)", re.DOTALL)
_EVERY: Final = "@every "
_SHORTHANDS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_BOUNDS: Final = ((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (0, 6, _DAYS))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND, _MINUTE, _HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


class UnknownZone(ValueError):
    """There is no such time zone; its text is the reason."""


class Schedule(Protocol):
    """Says when something is due next."""

    def next(self, moment: datetime) -> datetime | None:
        """Return the first moment after another, in UTC; None where there is none within five years."""


class Every:
    """Due again and again after the same time, in whole seconds."""

    def __init__(self, pause: timedelta) -> None:
        self._pause = timedelta(seconds=max(1, pause // _SECOND))

    def next(self, moment: datetime) -> datetime | None:
        """Return the moment after another, to the second."""
        return moment.replace(microsecond=0) + self._pause


class Fields:
    """Due when minute, hour, day and month fit. Days of the month or of the week suffice where both are restricted."""

    def __init__(self, text: str, zone: tzinfo) -> None:
        read = [_values(field, *bounds) for field, bounds in zip(text.split(), _BOUNDS, strict=True)]
        (self._minutes, _), (self._hours, _), (self._days, any_day), (self._months, _), last = read
        self._weekdays, any_week = last
        self._either = not (any_day or any_week)
        self._zone = zone

    def next(self, moment: datetime) -> datetime | None:
        """Return the first moment after another, in UTC."""
        last_year = moment.astimezone(self._zone).year + _MAX_YEARS
        walk = _Walk(moment.replace(microsecond=0) + _SECOND, self._zone)
        while walk.local.year <= last_year:
            if self._advance(walk):
                return walk.at
        return None

    def _advance(self, walk: _Walk) -> bool:
        """Move on to what fits; return False where a field began anew, so that all have to be looked at again."""
        while walk.local.month not in self._months:
            walk.to_next_month()
            if walk.local.month == 1:
                return False
        while not self._day_fits(walk.local):
            walk.to_next_day()
            if walk.local.day == 1:
                return False
        while walk.local.hour not in self._hours:
            walk.to_next_hour()
            if walk.local.hour == 0:
                return False
        while walk.local.minute not in self._minutes:
            walk.to_next_minute()
            if walk.local.minute == 0:
                return False
        if walk.local.second:
            walk.to_next_minute()
            return False
        return True

    def _day_fits(self, local: datetime) -> bool:
        day, weekday = local.day in self._days, local.isoweekday() % 7 in self._weekdays
        return (day or weekday) if self._either else (day and weekday)


class _Walk:
    """A moment that moves on field by field. Once it has moved, the smaller fields are at their beginnings."""

    def __init__(self, at: datetime, zone: tzinfo) -> None:
        self._zone = zone
        self._moved = False
        self._go(at)

    def _go(self, at: datetime) -> None:
        self.at = at.astimezone(UTC)
        self.local = at.astimezone(self._zone)

    def to_next_month(self) -> None:
        day, time = (self.local.day, self.local.time()) if self._moved else (1, datetime.min.time())
        self._moved = True
        year, month = divmod(self.local.year * 12 + self.local.month, 12)
        self._go(_wall_time(datetime.combine(datetime(year, month + 1, day), time), self._zone))  # noqa: DTZ001  wall

    def to_next_day(self) -> None:
        wall, before = self.local.replace(tzinfo=None), self.at
        if not self._moved:
            self._moved = True
            wall = _wall_time(wall.replace(hour=0, minute=0, second=0), self._zone).astimezone(self._zone)
            wall = wall.replace(tzinfo=None)
        self._go(_wall_time(wall + timedelta(days=1), self._zone))
        hour = self.local.hour
        if hour:  # there is no midnight on this day
            self._go(self.at + (24 - hour if hour > 12 else -hour) * _HOUR)
        if self.at <= before:  # the whole day is left out
            self._go(before + 24 * _HOUR)

    def to_next_hour(self) -> None:
        if not self._moved:
            self._moved = True
            self._go(_wall_time(self.local.replace(tzinfo=None, minute=0, second=0), self._zone))
        self._go(self.at + _HOUR)

    def to_next_minute(self) -> None:
        self._moved = True
        self._go(self.at.replace(second=0) + _MINUTE)


def _wall_time(wall: datetime, zone: tzinfo) -> datetime:
    """Return the moment of a wall clock's time; of one that is left out or comes twice, that which Go would take."""
    seen = wall.replace(tzinfo=UTC)
    guess = _offset(seen, zone)
    return seen - _offset(seen - guess, zone) if guess else seen


def _offset(at: datetime, zone: tzinfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name, UTC without one. Raises UnknownZone."""
    if name in ("", "UTC", "Local"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UnknownZone(f"unknown time zone {name}") from None


@lru_cache(maxsize=4096)
def schedule(text: str, zone: str = "") -> Schedule:
    """Read a schedule. zone: by which it goes, unless it has one in front. Raises ScheduleError and UnknownZone."""
    check_schedule(text)
    zoned = _ZONE.fullmatch(text)
    if zoned is not None:
        text, zone = zoned["rest"].strip(), zoned["zone"]
    place = zone_of(zone)
    if text.startswith(_EVERY):
        return Every(timedelta(microseconds=durations.parse(text.removeprefix(_EVERY)) // 1000))
    return Fields(_SHORTHANDS.get(text, text), place)


def _values(field: str, low: int, high: int, names: tuple[str, ...]) -> tuple[frozenset[int], bool]:
    """Return what a field allows, and whether that is anything."""
    found: set[int] = set()
    anything = False
    for part in filter(None, field.split(",")):
        span, _, step_text = part.partition("/")
        first, _, last = span.partition("-")
        step = int(step_text or 1)
        if first in ("*", "?"):
            begin, end = low, high
            anything = anything or step == 1
        else:
            begin = _number(first, low, names)
            end = _number(last, low, names) if last else high if step_text else begin
        found.update(range(begin, end + 1, step))
    return frozenset(found), anything


def _number(text: str, low: int, names: tuple[str, ...]) -> int:
    return names.index(text.lower()) + low if text.lower() in names else int(text)
