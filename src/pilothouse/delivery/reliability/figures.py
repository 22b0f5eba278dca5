"""Counts by day and hour, and what they come to: the objective, its error budget, burn rates, deploys. Pure.

Terms are those of the field: the budget is what an objective allows to be bad (Site Reliability Workbook, chapter 5);
lead time, success rate and time to restore are three of the four DORA metrics, deploys a day is the fourth.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.resources.servicelevels import (
    Deploy,
    ServiceFigures,
    ServiceLevelSpec,
    ServiceLevelStatus,
    Span,
)
from pilothouse.kinds import times
from pilothouse.kinds.structs import replace

__all__ = ["ObjectiveError", "counted", "objective_of", "summed_up"]

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_HOURS_KEPT: Final = 72
_MOST_DAYS: Final = 400
_SHORT, _LONG = 1, 6
SUCCEEDED: Final = "Succeeded"
ROLLED_BACK: Final = "RolledBack"


class ObjectiveError(DeliveryError):
    """An objective that is no share between 0 and 100 %."""


def objective_of(spec: ServiceLevelSpec) -> float:
    """Return the share (0 to 1) of answers that have to be good. Raises ObjectiveError."""
    text = spec.objective
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise ObjectiveError(f"spec.objective '{text}': want a share below 100%, such as 99.9%")
    return share


def counted(status: ServiceLevelStatus, now: datetime, requests: int, bad: int, days: int) -> ServiceLevelStatus:
    """Return a status with requests added that came until now; what is older than the window is dropped."""
    kept = min(max(days, 1), _MOST_DAYS)
    return replace(
        status,
        days=_added(status.days, now.replace(hour=0, minute=0, second=0, microsecond=0), requests, bad, kept * _DAY),
        hours=_added(status.hours, now.replace(minute=0, second=0, microsecond=0), requests, bad, _HOURS_KEPT * _HOUR),
        counted_until=times.format_seconds(now),
    )


def _added(spans: Sequence[Span], begin: datetime, requests: int, bad: int, window: timedelta) -> list[Span]:
    oldest = begin - window
    kept = [span for span in spans if times.parse(span.begin) > oldest]
    moment = times.format_seconds(begin)
    if kept and kept[-1].begin == moment:
        last = kept.pop()
        requests, bad = last.requests + requests, last.bad + bad
    return [*kept, Span(begin=moment, requests=requests, bad=bad)]


def summed_up(spec: ServiceLevelSpec, status: ServiceLevelStatus, now: datetime) -> ServiceFigures:
    """Return what the counts come to at a moment. Raises ObjectiveError."""
    allowed = 1 - objective_of(spec)
    requests, bad = _total(status.days, now - spec.window_days * _DAY)
    ended = [each for each in status.deploys if each.outcome in (SUCCEEDED, ROLLED_BACK)]
    good = [each for each in ended if each.outcome == SUCCEEDED]
    return ServiceFigures(
        requests=requests,
        attained=_percent(1 - bad / requests, 3) if requests else None,
        budget_left=_percent(1 - bad / (requests * allowed), 1) if requests else None,
        burn_rate_1h=_burn(status.hours, now - _SHORT * _HOUR, allowed),
        burn_rate_6h=_burn(status.hours, now - _LONG * _HOUR, allowed),
        deploys=len(ended),
        deploys_per_day=_per_day(ended, now),
        success_rate=_percent(len(good) / len(ended), 1) if ended else None,
        lead_time_seconds=_median_of(_between(each.committed_at or each.started_at, each.ended_at) for each in good),
        restore_seconds=_restored(ended),
    )


def _total(spans: Sequence[Span], since: datetime) -> tuple[int, int]:
    counting = [span for span in spans if times.parse(span.begin) >= since]
    return sum(span.requests for span in counting), sum(span.bad for span in counting)


def _burn(hours: Sequence[Span], since: datetime, allowed: float) -> str | None:
    """Return how many times faster than allowed the budget goes; an hour counts whole where it is touched."""
    requests, bad = _total(hours, since.replace(minute=0, second=0, microsecond=0))
    return f"{bad / requests / allowed:.2f}" if requests else None


def _per_day(deploys: Sequence[Deploy], now: datetime) -> str | None:
    if not deploys:
        return None
    days = max((now - times.parse(deploys[0].started_at)) / _DAY, 1.0)
    return f"{len(deploys) / days:.1f}"


def _restored(deploys: Iterable[Deploy]) -> str | None:
    """Return the median of seconds from a verdict to the moment from which nobody met the bad version."""
    found = [_between(each.decided_at, each.restored_at) for each in deploys if each.outcome == ROLLED_BACK]
    spans = [each for each in found if each is not None]
    return f"{statistics.median(spans):.1f}" if spans else None


def _between(begin: str | None, end: str | None) -> float | None:
    return (times.parse(end) - times.parse(begin)).total_seconds() if begin and end else None


def _median_of(spans: Iterable[float | None]) -> int | None:
    found = [each for each in spans if each is not None]
    return round(statistics.median(found)) if found else None


def _percent(share: float, digits: int) -> str:
    return f"{share * 100:.{digits}f}%"
