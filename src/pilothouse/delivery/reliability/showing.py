"""The pages of `pilothouse slo`: what a service promises, how it keeps it, and what became of its deploys. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from pilothouse.delivery.resources.servicelevels import Deploy, ServiceLevel
from pilothouse.delivery.showing import aligned, bar, sparkline
from pilothouse.foundation.terminal import printable
from pilothouse.kinds import times
from pilothouse.kinds.ages import Ages, human_duration

from .figures import ObjectiveError, objective_of

__all__ = ["COLUMNS", "DayView", "ServiceView", "days_line", "page_of", "row_of", "view_of"]

COLUMNS: Final = (
    "namespace", "name", "objective", "attained", "budget left", "burn 1h", "burn 6h", "deploys", "success",
    "lead time", "restore",
)  # fmt: skip
_NONE: Final = "-"
_MOST_DAYS: Final = 90
_DEPLOYS: Final = 10


class DayView(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A day. budget_kept: of what the objective allows of that day's requests, the share that was not used up."""

    day: str
    requests: int = 0
    bad: int = 0
    budget_kept: float | None = None


class ServiceView(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A service level as users read it, with the figures as its status has them."""

    namespace: str
    name: str
    rollout: str
    objective: str
    window_days: int
    latency: str | None = None
    requests: int = 0
    attained: str | None = None
    budget_left: str | None = None
    burn_rate_1h: str | None = msgspec.field(default=None, name="burnRate1h")
    burn_rate_6h: str | None = msgspec.field(default=None, name="burnRate6h")
    deploys: int = 0
    deploys_per_day: str | None = None
    success_rate: str | None = None
    lead_time_seconds: int | None = None
    restore_seconds: str | None = None
    counted_until: str | None = None
    days: Sequence[DayView] = ()
    recent_deploys: Sequence[Deploy] = ()


def view_of(level: ServiceLevel, now: datetime) -> ServiceView:
    """Return what there is to see of a service level."""
    spec, status = level.spec, level.status
    figures = status.figures
    return ServiceView(
        namespace=level.metadata.namespace,
        name=level.metadata.name,
        rollout=spec.rollout,
        objective=spec.objective,
        window_days=spec.window_days,
        latency=spec.latency,
        requests=figures.requests,
        attained=figures.attained,
        budget_left=figures.budget_left,
        burn_rate_1h=figures.burn_rate_1h,
        burn_rate_6h=figures.burn_rate_6h,
        deploys=figures.deploys,
        deploys_per_day=figures.deploys_per_day,
        success_rate=figures.success_rate,
        lead_time_seconds=figures.lead_time_seconds,
        restore_seconds=figures.restore_seconds,
        counted_until=status.counted_until,
        days=_days(level, now),
        recent_deploys=list(status.deploys)[-_DEPLOYS:],
    )


def _days(level: ServiceLevel, now: datetime) -> list[DayView]:
    """Return the days up to now, those without requests too, the oldest first."""
    try:
        allowed = 1 - objective_of(level.spec)
    except ObjectiveError:
        return []
    counted = {span.begin[:10]: span for span in level.status.days}
    made = []
    for back in reversed(range(min(max(level.spec.window_days, 1), _MOST_DAYS))):
        day = times.format_seconds(now - timedelta(days=back))[:10]
        span = counted.get(day)
        if span is None or not span.requests:
            made.append(DayView(day=day))
            continue
        kept = max(0.0, 1 - span.bad / (span.requests * allowed))
        made.append(DayView(day=day, requests=span.requests, bad=span.bad, budget_kept=round(kept, 4)))
    return made


# Lines


def row_of(view: ServiceView) -> dict[str, str]:
    """Return the row of a list."""
    cells = (
        view.namespace,
        view.name,
        view.objective,
        view.attained,
        _budget(view),
        view.burn_rate_1h,
        view.burn_rate_6h,
        str(view.deploys),
        view.success_rate,
        None if view.lead_time_seconds is None else human_duration(view.lead_time_seconds),
        f"{view.restore_seconds}s" if view.restore_seconds else None,
    )
    return {name: cell or _NONE for name, cell in zip(COLUMNS, cells, strict=True)}


def _budget(view: ServiceView) -> str:
    if view.budget_left is None:
        return ""
    try:
        share = float(view.budget_left.removesuffix("%")) / 100
    except ValueError:
        return view.budget_left
    return f"{bar(share)} {view.budget_left}"


def days_line(view: ServiceView) -> str:
    """Return the days as a line: high where a day left its share of the budget alone, low where it used it up."""
    return sparkline(day.budget_kept for day in view.days)


def page_of(view: ServiceView, now: datetime) -> list[str]:
    """Return the page of one service level."""
    row = row_of(view)
    promise = f"{view.objective} over {view.window_days} days"
    per_day = f" ({view.deploys_per_day} a day)" if view.deploys_per_day else ""
    rows = [
        ("Name:", view.name),
        ("Namespace:", view.namespace),
        ("Rollout:", view.rollout),
        ("Objective:", f"{promise}, answered within {view.latency}" if view.latency else promise),
        ("Attained:", f"{row['attained']} of {view.requests} requests"),
        ("Budget left:", row["budget left"]),
        ("Burn rate:", f"{row['burn 1h']} (1h), {row['burn 6h']} (6h)"),
        ("Deploys:", f"{view.deploys}{per_day}, {row['success']} went well"),
        ("Lead time:", row["lead time"]),
        ("Restored in:", row["restore"]),
        ("Days:", days_line(view)),
    ]
    lines = aligned([(name.ljust(12), printable(value)) for name, value in rows])
    return [*lines, *_deploy_lines(view.recent_deploys, now)]


def _deploy_lines(deploys: Sequence[Deploy], now: datetime) -> list[str]:
    if not deploys:
        return []
    ages = Ages(now)
    titles = ["DEPLOY", "REVISION", "AGE", "OUTCOME", "MESSAGE"]
    rows = [
        [
            each.version,
            each.revision or "",
            ages.since(each.started_at),
            each.outcome or "under way",
            each.message or "",
        ]
        for each in reversed(deploys)
    ]
    return ["", *aligned([titles, *([printable(cell) for cell in row] for row in rows)])]
