"""An analysis run as a state machine: which measurements are due, and what the run makes of those that were taken.

All state is in the run's status, so another process goes on where one ended. What it says and when is what Argo
Rollouts says (docs: "Analysis & Progressive Delivery"): a metric fails once more measurements failed than its
`failureLimit`; it is inconclusive beyond `inconclusiveLimit`, in error beyond `consecutiveErrorLimit` errors in a row,
and successful once `count` were taken. The first metric that is not successful ends the run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pilothouse.delivery.resources.analyses import (
    AnalysisRun,
    AnalysisRunSpec,
    AnalysisRunStatus,
    Measurement,
    Metric,
    MetricResult,
    RunSummary,
)
from pilothouse.kinds import durations, times
from pilothouse.kinds.structs import replace

__all__ = [
    "COMPLETED",
    "ERROR",
    "FAILED",
    "INCONCLUSIVE",
    "PENDING",
    "RUNNING",
    "SUCCESSFUL",
    "Due",
    "due",
    "is_ending",
    "taken",
]

PENDING: Final = "Pending"
RUNNING: Final = "Running"
SUCCESSFUL: Final = "Successful"
FAILED: Final = "Failed"
INCONCLUSIVE: Final = "Inconclusive"
ERROR: Final = "Error"
COMPLETED: Final = frozenset((SUCCESSFUL, FAILED, INCONCLUSIVE, ERROR))
_FROM_BEST: Final = (SUCCESSFUL, RUNNING, PENDING, "", INCONCLUSIVE, ERROR, FAILED)
_ERRORS_IN_A_ROW: Final = 4
_ERROR_SECONDS: Final = 10.0
"""After an error, where a metric says no interval."""
_REPEATED_GROUP: Final = re.compile(r"\)[*+{]")
_KEPT: Final = 10
"""Measurements of each metric, where `measurementRetention` says no other number."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be measured now. started: the measurement that goes on; none where a new one begins."""

    metric: Metric
    started: Measurement | None = None


def due(run: AnalysisRun, now: datetime) -> tuple[list[Due], float | None]:
    """Return what is to be measured now, and in how many seconds the next is due; None where nothing will be.

    A run that is ending has nothing due but those that go on: they are terminated.
    """
    if run.status.phase in COMPLETED:
        return [], None
    results = {result.name: result for result in run.status.metric_results}
    ending = is_ending(run)
    found: list[Due] = []
    waits: list[float] = []
    for metric in run.spec.metrics:
        wait = _wait(metric, results.get(metric.name), run.status.started_at, now, ending=ending)
        if wait is None:
            continue
        if wait > 0:
            waits.append(wait)
            continue
        result = results.get(metric.name)
        open_ = result is not None and result.measurements and result.measurements[-1].phase not in COMPLETED
        found.append(Due(metric, result.measurements[-1] if open_ and result else None))
    return found, min(waits, default=None)


def _wait(
    metric: Metric, result: MetricResult | None, began: str | None, now: datetime, *, ending: bool
) -> float | None:
    """Return the seconds until a metric is measured; None where it is not any more."""
    if result is None or not result.measurements:
        if ending or (result is not None and result.phase in COMPLETED):
            return None
        delay = _seconds(metric.initial_delay) or 0.0
        return max(0.0, delay - (now - times.parse(began)).total_seconds()) if began else delay
    last = result.measurements[-1]
    if last.phase not in COMPLETED:
        return 0.0 if ending or not last.resume_at else max(0.0, (times.parse(last.resume_at) - now).total_seconds())
    count = _count(metric)
    if ending or result.phase in COMPLETED or (count is not None and (result.count or 0) >= count):
        return None
    interval = _seconds(metric.interval)
    interval = _ERROR_SECONDS if interval is None else interval
    return max(0.0, interval - (now - times.parse(last.finished_at or last.started_at or began or "")).total_seconds())


def taken(run: AnalysisRun, measured: Mapping[str, Measurement], now: datetime) -> AnalysisRunStatus:
    """Return a run's status with new measurements, by metric, taken in."""
    began = run.status.started_at or times.format_micros(now)
    before = {result.name: result for result in run.status.metric_results}
    ending = is_ending(run)
    results = []
    for metric in run.spec.metrics:
        fresh = MetricResult(name=metric.name, phase=PENDING, dry_run=_dry(run.spec, metric))
        result = before.get(metric.name, fresh)
        if metric.name in measured:
            result = _counted(result, measured[metric.name], _retention(run.spec, metric))
        results.append(_judged(metric, result, ending=ending))
    return _summed(run.spec, run.status, results, began, now)


def _counted(result: MetricResult, measured: Measurement, kept: int) -> MetricResult:
    """Put a measurement in: instead of the one that goes on, or after the last."""
    open_ = bool(result.measurements) and result.measurements[-1].phase not in COMPLETED
    earlier = result.measurements[:-1] if open_ else result.measurements
    changed = replace(result, measurements=tuple([*earlier, measured][-kept:]), phase=RUNNING)
    if measured.phase not in COMPLETED:
        return changed
    if measured.phase == ERROR:
        return replace(
            changed,
            error=(result.error or 0) + 1,
            consecutive_error=(result.consecutive_error or 0) + 1,
            consecutive_success=None,
        )
    good = measured.phase == SUCCESSFUL
    return replace(
        changed,
        count=(result.count or 0) + 1,
        successful=_more(result.successful, good),
        failed=_more(result.failed, measured.phase == FAILED),
        inconclusive=_more(result.inconclusive, measured.phase == INCONCLUSIVE),
        consecutive_error=None,
        consecutive_success=_more(result.consecutive_success, good) if good else None,
    )


def _more(before: int | None, one: bool) -> int | None:
    return ((before or 0) + one) or None


def _judged(metric: Metric, result: MetricResult, *, ending: bool) -> MetricResult:
    """Say how a metric is now."""
    if result.phase in COMPLETED:
        return result
    if not result.measurements:
        return replace(result, phase=SUCCESSFUL if ending else PENDING)
    last = result.measurements[-1]
    if last.phase not in COMPLETED:
        return replace(result, phase=RUNNING)
    for phase, name, said, limit in (
        (FAILED, "failed", result.failed, _limit(metric.failure_limit, 0)),
        (INCONCLUSIVE, "inconclusive", result.inconclusive, _limit(metric.inconclusive_limit, 0)),
        (
            ERROR,
            "consecutiveErrors",
            result.consecutive_error,
            _limit(metric.consecutive_error_limit, _ERRORS_IN_A_ROW),
        ),
    ):
        if 0 <= limit < (said or 0):
            why = f"{name} ({said}) > {_LIMIT_NAMES[phase]} ({limit})"
            return replace(result, phase=phase, message=f"{last.message}; {why}" if last.message else why)
    wanted = _limit(metric.consecutive_success_limit, 0)
    if 0 < wanted <= (result.consecutive_success or 0):
        return replace(result, phase=SUCCESSFUL)
    count = _count(metric)
    if count is not None and (result.count or 0) >= count:
        # Where successes in a row are wanted, running out of measurements before proves nothing.
        if wanted <= 0:
            return replace(result, phase=SUCCESSFUL)
        why = f"consecutiveSuccess ({result.consecutive_success or 0}) < consecutiveSuccessLimit ({wanted})"
        return replace(result, phase=INCONCLUSIVE, message=why)
    return replace(result, phase=SUCCESSFUL if ending else RUNNING)


_LIMIT_NAMES: Final = {FAILED: "failureLimit", INCONCLUSIVE: "inconclusiveLimit", ERROR: "consecutiveErrorLimit"}


def _summed(
    spec: AnalysisRunSpec, before: AnalysisRunStatus, results: list[MetricResult], began: str, now: datetime
) -> AnalysisRunStatus:
    """Say how the whole run is: as its worst metric, but it goes on until all have ended."""
    judging = [result for result in results if not result.dry_run]
    worst = max(judging, key=lambda result: _FROM_BEST.index(result.phase), default=None)
    phase = worst.phase if worst is not None else (PENDING if results else SUCCESSFUL)
    if worst is None and results and all(result.phase in COMPLETED for result in results):
        phase = SUCCESSFUL
    message = before.message
    if phase in COMPLETED and not all(result.phase in COMPLETED for result in results):
        phase = RUNNING  # others go on: they are terminated at the next look
    if phase in COMPLETED and phase != SUCCESSFUL and worst is not None:
        message = f'Metric "{worst.name}" assessed {phase} due to {worst.message}'
    elif phase in COMPLETED and spec.terminate:
        message = "Run Terminated"
    return AnalysisRunStatus(
        phase=phase,
        message=message,
        metric_results=results,
        started_at=began,
        completed_at=times.format_micros(now) if phase in COMPLETED else None,
        run_summary=_summary(judging),
        dry_run_summary=_summary([result for result in results if result.dry_run]),
    )


def _summary(results: Sequence[MetricResult]) -> RunSummary | None:
    if not results:
        return None

    def said(phase: str) -> int | None:
        return sum(result.phase == phase for result in results) or None

    return RunSummary(
        count=len(results),
        successful=said(SUCCESSFUL),
        failed=said(FAILED),
        inconclusive=said(INCONCLUSIVE),
        error=said(ERROR),
    )


def is_ending(run: AnalysisRun) -> bool:
    """Say whether measurements are to end: it was asked for, or a metric has decided."""
    return bool(run.spec.terminate) or any(
        result.phase in (FAILED, ERROR, INCONCLUSIVE) and not result.dry_run for result in run.status.metric_results
    )


def _dry(spec: AnalysisRunSpec, metric: Metric) -> bool | None:
    return any(_matches(each.metric_name, metric.name) for each in spec.dry_run) or None


def _retention(spec: AnalysisRunSpec, metric: Metric) -> int:
    for each in spec.measurement_retention:
        if _matches(each.metric_name, metric.name):
            return max(1, each.limit)
    return _KEPT


def _matches(pattern: str, name: str) -> bool:
    """Match a name, `*` for all, or a regular expression; one that may take for ever never does."""
    if pattern in ("*", ".*", name):
        return True
    if _REPEATED_GROUP.search(pattern):
        return False
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False


def _count(metric: Metric) -> int | None:
    """Return how many measurements end a metric; None where it goes on until it is ended."""
    if metric.count is None:
        return 1 if not metric.interval else None
    return int(metric.count) or (1 if not metric.interval else None)


def _limit(found: int | str | None, instead: int) -> int:
    return instead if found is None or found == "" else int(found)


def _seconds(text: str | None) -> float | None:
    return timedelta(microseconds=durations.parse(text) // durations.MICROSECOND).total_seconds() if text else None
