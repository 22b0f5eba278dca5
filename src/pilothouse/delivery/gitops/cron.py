"""When a cron schedule of five fields falls due: as much of it as sync windows need."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from pilothouse.kinds.validation.cron import ScheduleError, check_schedule

__all__ = ["due_within"]

_NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_NAMES: Final = (
    (),
    (),
    (),
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
)
_BOUNDS: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


class _Schedule(NamedTuple):
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    """Whether both kinds of days are given: then one of both is enough."""

    def on(self, moment: datetime) -> bool:
        """Whether it falls due on this day."""
        if moment.month not in self.months:
            return False
        by_day, by_weekday = moment.day in self.days, moment.isoweekday() % 7 in self.weekdays
        return by_day or by_weekday if self.either else by_day and by_weekday


def due_within(schedule: str, now: datetime, duration: timedelta) -> bool:
    """Whether a schedule fell due in the time before now, now included. Raises ScheduleError for what is none.

    Fields are those of clocks in the zone of now, the duration is time that passes: they differ where clocks change.
    """
    read = _read(schedule)
    end = now.timestamp()
    start = end - min(duration, timedelta(days=366)).total_seconds()
    first = datetime.fromtimestamp(start, now.tzinfo)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    while day + timedelta(days=1) > first:
        if read.on(day):
            for hour in read.hours:
                for minute in read.minutes:
                    if any(start < each <= end for each in _times(day + timedelta(hours=hour, minutes=minute))):
                        return True
        day -= timedelta(days=1)
    return False


def _times(moment: datetime) -> Iterator[float]:
    """Give when clocks show a moment: once, twice where they are put back, never where they are put forward over it."""
    zone = moment.tzinfo
    times = {moment.replace(fold=fold).timestamp() for fold in (0, 1)}
    shown = moment.replace(tzinfo=None, fold=0)
    yield from (each for each in times if datetime.fromtimestamp(each, zone).replace(tzinfo=None, fold=0) == shown)


@lru_cache(maxsize=256)
def _read(schedule: str) -> _Schedule:
    check_schedule(schedule)
    fields = _NAMED.get(schedule, schedule).lower().split()
    if len(fields) != len(_BOUNDS):
        raise ScheduleError(f"{schedule!r}: windows want five fields")
    sets = [_field(field, number) for number, field in enumerate(fields)]
    sets[4] = frozenset(each % 7 for each in sets[4])
    either = not fields[2].startswith(("*", "?")) and not fields[4].startswith(("*", "?"))
    return _Schedule(sets[0], sets[1], sets[2], sets[3], sets[4], either)


def _field(text: str, number: int) -> frozenset[int]:
    low, high = _BOUNDS[number]
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if first in {"*", "?"}:
            begin, end = low, 6 if number == 4 else high
        else:
            begin = _number(first, number)
            end = _number(last, number) if dash else (high if step else begin)
        found.update(range(begin, end + 1, max(int(step or 1), 1)))
    return frozenset(found)


def _number(text: str, number: int) -> int:
    names = _NAMES[number]
    return names.index(text) + (1 if number == 3 else 0) if text in names else int(text)
