"""Sync windows of projects: whether an application may be synced now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pilothouse.delivery.resources.applications import SyncWindow
from pilothouse.kinds.durations import parse as parse_duration
from pilothouse.kinds.validation.cron import ScheduleError

from .cron import due_within
from .globs import matches

__all__ = ["WindowError", "Windowed", "is_active", "may_sync"]


class WindowError(ValueError):
    """A window that cannot be read; its text names it."""


class Windowed(NamedTuple):
    """What windows are matched with."""

    application: str
    namespace: str
    cluster: str


def is_active(window: SyncWindow, now: datetime) -> bool:
    """Whether a window is open. Raises WindowError."""
    try:
        zone = ZoneInfo(window.time_zone) if window.time_zone else None
        duration = timedelta(microseconds=parse_duration(window.duration) / 1000)
        return due_within(window.schedule, now.astimezone(zone) if zone else now, duration)
    except (ScheduleError, ZoneInfoNotFoundError, ValueError) as error:
        raise WindowError(f"sync window {window.schedule!r} for {window.duration!r}: {error}") from None


def may_sync(windows: Iterable[SyncWindow], what: Windowed, now: datetime, *, manual: bool) -> str:
    """Return why a sync may not begin now, an empty text where it may. Raises WindowError."""
    own = [window for window in windows if _concerns(window, what)]
    active = [window for window in own if is_active(window, now)]
    denied = [window for window in active if window.kind == "deny"]
    if denied:
        return "" if manual and _all_manual(denied) else f"a deny window is open: {denied[0].schedule}"
    allowed = [window for window in own if window.kind == "allow"]
    if not allowed or any(window.kind == "allow" for window in active):
        return ""
    return "" if manual and _all_manual(allowed) else f"no allow window is open; the first is {allowed[0].schedule}"


def _all_manual(windows: Sequence[SyncWindow]) -> bool:
    return all(window.manual_sync for window in windows)


def _concerns(window: SyncWindow, what: Windowed) -> bool:
    tests = [
        (window.applications, what.application),
        (window.namespaces, what.namespace),
        (window.clusters, what.cluster),
    ]
    given = [any(matches(pattern, text) for pattern in patterns) for patterns, text in tests if patterns]
    return bool(given) and (all(given) if window.use_and_operator else any(given))
