"""Cron schedules of five fields, with the messages that CronJobs give (facts: the standard parser of robfig/cron 3)."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ScheduleError", "check_schedule"]


class ScheduleError(ValueError):
    """A schedule that cannot be read; its text is the reason."""


class _Bounds(NamedTuple):
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Bounds(0, 59),
    _Bounds(0, 23),
    _Bounds(1, 31),
    _Bounds(1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    _Bounds(0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_DESCRIPTORS = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DURATION = re.compile(r"[+-]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
_ZONE = re.compile(r"(?:CRON_)?TZ=(?P<zone>[^ ]*) (?P<rest>.*)", re.DOTALL)
_EVERY = "@every "


def check_schedule(text: str) -> None:
    """Raise ScheduleError unless the text is a schedule. A time zone in front is skipped, not looked up."""
    if not text:
        raise ScheduleError("empty spec string")
    if text.startswith(("TZ=", "CRON_TZ=")):
        zoned = _ZONE.fullmatch(text)
        if zoned is None:
            raise ScheduleError("invalid schedule format: runtime error: slice bounds out of range [:-1]")
        text = zoned["rest"].strip()
    if text.startswith("@"):
        _descriptor(text)
        return
    fields = text.split()
    if len(fields) != len(_FIELDS):
        shown = " ".join(fields)
        raise ScheduleError(f"expected exactly {len(_FIELDS)} fields, found {len(fields)}: [{shown}]")
    for field, bounds in zip(fields, _FIELDS, strict=True):
        for part in filter(None, field.split(",")):
            _range(part, bounds)


def _descriptor(text: str) -> None:
    if text in _DESCRIPTORS:
        return
    if not text.startswith(_EVERY):
        raise ScheduleError(f"unrecognized descriptor: {text}")
    if not _DURATION.fullmatch(text.removeprefix(_EVERY)):
        raise ScheduleError(f'failed to parse duration {text}: time: invalid duration "{text.removeprefix(_EVERY)}"')


def _range(text: str, bounds: _Bounds) -> None:
    span, *steps = text.split("/")
    first, *last = span.split("-")
    if first in {"*", "?"}:
        low, high = bounds.low, bounds.high
    else:
        low = _number_or_name(first, bounds)
        if len(last) > 1:
            raise ScheduleError(f"too many hyphens: {text}")
        high = _number_or_name(last[0], bounds) if last else low
    if len(steps) > 1:
        raise ScheduleError(f"too many slashes: {text}")
    step = _number(steps[0]) if steps else 1
    if steps and not last:
        high = bounds.high
    if low < bounds.low:
        raise ScheduleError(f"beginning of range ({low}) below minimum ({bounds.low}): {text}")
    if high > bounds.high:
        raise ScheduleError(f"end of range ({high}) above maximum ({bounds.high}): {text}")
    if low > high:
        raise ScheduleError(f"beginning of range ({low}) beyond end of range ({high}): {text}")
    if step == 0:
        raise ScheduleError(f"step of range should be a positive number: {text}")


def _number_or_name(text: str, bounds: _Bounds) -> int:
    if text.lower() in bounds.names:
        return bounds.names.index(text.lower()) + bounds.low
    return _number(text)


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ScheduleError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    number = int(text)
    if number < 0:
        raise ScheduleError(f"negative number ({number}) not allowed: {text}")
    return number
