"""What an incident says as time goes on: evidence, the moments of a rollback, and when it is over. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pilothouse.delivery.analysis.traffic import Seen
from pilothouse.delivery.resources.analyses import AnalysisRun, Measurement, MetricResult
from pilothouse.delivery.resources.incidents import Evidence, Incident, IncidentStatus, Moment
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts.names import HASH
from pilothouse.kinds import times
from pilothouse.kinds.structs import Event, ReplicaSet, replace

__all__ = ["CLOSED", "GIT_DONE", "OPEN", "evidence_of", "first_bad", "first_failure", "followed", "timeline"]

OPEN: Final = "Open"
CLOSED: Final = "Closed"
GIT_DONE: Final = frozenset({"Off", "Reverted", "NotNeeded", "Failed"})
_BAD: Final = frozenset({"Failed", "Error"})
_MOST_EVIDENCE: Final = 20
_MOST_MOMENTS: Final = 60
_MOST_TEXT: Final = 1000
_BACK_SECONDS: Final = 90
_GAP_SECONDS: Final = 3
_TOLD: Final[Mapping[str, str]] = {
    "RolloutUpdated": "Updated",
    "RolloutStepCompleted": "StepCompleted",
    "RolloutPaused": "Paused",
    "TrafficWeightUpdated": "TrafficWeight",
}
"""Events of a rollout that are moments of its incident, by reason."""


# Evidence


def evidence_of(runs: Iterable[AnalysisRun], version: str, since: str | None) -> list[Evidence]:
    """Return what the metrics of a version's bad runs measured since it began, the failed ones first."""
    made = []
    for run in sorted(runs, key=lambda each: each.metadata.name):
        is_of = run.metadata.labels.get(HASH) == version and run.status.phase in _BAD
        if is_of and not _is_before(run.status.completed_at, since):
            made += [_evidence(run, result) for result in run.status.metric_results if not result.dry_run]
    return sorted(made, key=lambda each: each.phase not in _BAD)[:_MOST_EVIDENCE]


def _is_before(at: str | None, since: str | None) -> bool:
    return bool(at and since) and times.parse(at or "") < times.parse(since or "")


def _evidence(run: AnalysisRun, result: MetricResult) -> Evidence:
    last = result.measurements[-1] if result.measurements else Measurement(phase=result.phase)
    canary, stable = _sides(last.value)
    message = last.message or result.message or run.status.message
    return Evidence(
        run=run.metadata.name,
        metric=result.name,
        phase=result.phase,
        message=message[:_MOST_TEXT] if message else None,
        value=last.value[:_MOST_TEXT] if last.value else None,
        canary=canary,
        stable=stable,
    )


def _sides(value: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the numbers of a judge's value: those of the canary, and those of the stable version."""
    try:
        found = json.loads(value or "")
    except ValueError:
        return {}, {}
    if not isinstance(found, Mapping) or "requests" not in found:
        return {}, {}
    words = {"requests": "requests", "errors": "errors", "errorRatio": "errorRatio", "p95": "p95"}
    beside = {"errorRatio": "stableErrorRatio", "p95": "stableP95"}
    return _numbers(found, words), _numbers(found, beside)


def _numbers(found: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, str]:
    return {
        name: _number(name, found[word]) for name, word in words.items() if isinstance(found.get(word), int | float)
    }


def _number(name: str, value: float) -> str:
    if name == "p95":
        return f"{value * 1000:.0f}ms"
    return f"{value * 100:.2f}%" if name == "errorRatio" else f"{value:g}"


def first_failure(runs: Iterable[AnalysisRun], evidence: Sequence[Evidence]) -> str | None:
    """Return when the first measurement failed of those that are taken one by one."""
    named = {(each.run, each.metric) for each in evidence if each.phase in _BAD}
    found = [
        one.started_at
        for run in runs
        for result in run.status.metric_results
        if (run.metadata.name, result.name) in named
        and not _sides(result.measurements[-1].value if result.measurements else None)[0]
        for one in result.measurements
        if one.phase in _BAD and one.started_at
    ]
    return min(found, default=None)


def first_bad(look: Callable[[float], Seen], decided: datetime, since: datetime | None, p95: float) -> str | None:
    """Return the first of the bad seconds that led to a verdict, none where there are none.

    look: gives the figures of the second that ends at a moment (since 1970). p95: seconds above which answers are
    bad where it is more than one in twenty. Pauses of up to 3 s are a part of it; it goes back 90 s at most.
    """
    found: datetime | None = None
    end = decided.replace(microsecond=0) + timedelta(seconds=1)
    gap = 0
    for number in range(_BACK_SECONDS):
        at = end - timedelta(seconds=number)
        if (since is not None and at <= since) or gap > _GAP_SECONDS + (2 if found is None else 0):
            break
        seen = look(at.timestamp())
        if seen.errors or (seen.requests and seen.slower(p95) > seen.requests / 20):
            found, gap = at - timedelta(seconds=1), 0
        else:
            gap += 1
    return times.format_micros(found) if found is not None else None


# What becomes of it


def followed(incident: Incident, rollout: Rollout | None, sets: Iterable[ReplicaSet], now: datetime) -> IncidentStatus:
    """Return the status with what the objects say now: whether traffic is back, and replicas are down."""
    spec, status = incident.spec, incident.status
    moment = times.format_micros(now)
    own = [each for each in sets if each.metadata.labels.get(HASH) == spec.version]
    if status.traffic_back_at is None and _is_back(rollout, spec.version, own):
        status = replace(status, traffic_back_at=moment)
    if status.replicas_down_at is None and not any(each.status.replicas or each.spec.replicas for each in own):
        status = replace(status, replicas_down_at=moment)
    if _is_again(rollout, spec.version) or rollout is None:
        status = replace(
            status,
            traffic_back_at=status.traffic_back_at or moment,
            replicas_down_at=status.replicas_down_at or moment,
        )
    is_over = status.traffic_back_at and status.replicas_down_at and status.git.state in GIT_DONE
    return replace(status, phase=CLOSED if is_over else OPEN)


def _is_back(rollout: Rollout | None, version: str, own: Sequence[ReplicaSet]) -> bool:
    if rollout is None:
        return True
    weights, green = rollout.status.canary.weights, rollout.status.blue_green
    if rollout.spec.strategy.blue_green is not None:
        return green.active_selector != version
    if weights is not None:
        return not weights.canary.weight or weights.canary.pod_template_hash not in {None, "", version}
    routed = rollout.spec.strategy.canary is not None and rollout.spec.strategy.canary.traffic_routing is not None
    return routed or not any(each.status.available_replicas for each in own)


def _is_again(rollout: Rollout | None, version: str) -> bool:
    """Whether somebody tries the version once more."""
    return rollout is not None and rollout.status.current_pod_hash == version and not rollout.status.abort


# The timeline


def timeline(incident: Incident, status: IncidentStatus, events: Iterable[Event]) -> list[Moment]:
    """Return the moments of a rollback in their order: of events, and of what the incident itself knows."""
    spec, git = incident.spec, status.git
    own = [
        _moment(spec.started_at, "Started", f"update to revision {spec.revision}"),
        _moment(status.first_bad_at, "FirstBad", "the first bad answers of those that led to the verdict"),
        _moment(spec.decided_at, "Decided", spec.message),
        _moment(status.traffic_back_at, "TrafficBack", "no traffic goes to the version any more"),
        _moment(status.replicas_down_at, "ReplicasDown", "the version has no pods any more"),
        _moment(
            git.rejected_at, "Rejected", f"{', '.join(each[:12] for each in git.rejected)} will not be synced again"
        ),
        _moment(git.ended_at, "Git", git.message or git.state or ""),
    ]
    told = sorted(_told(spec.started_at, status, events), key=lambda each: times.parse(each.at))
    # What happened first stays: the end is what the incident itself knows.
    made = [*told[: _MOST_MOMENTS - len(own)], *(each for each in own if each is not None)]
    return sorted(made, key=lambda each: times.parse(each.at))


def _moment(at: str | None, what: str, message: str) -> Moment | None:
    return Moment(at=at, what=what, message=message[:_MOST_TEXT]) if at else None


def _told(since: str | None, status: IncidentStatus, events: Iterable[Event]) -> Iterable[Moment]:
    begin = times.parse(since).replace(microsecond=0) if since else None
    end = times.parse(status.replicas_down_at) if status.replicas_down_at else None
    for event in events:
        what = _TOLD.get(event.reason)
        for at in dict.fromkeys((event.event_time or event.first_timestamp, event.last_timestamp)):
            if what is None or not at:
                continue
            moment = times.parse(at)
            if (begin is None or moment >= begin) and (end is None or moment <= end):
                yield Moment(at=at, what=what, message=event.message[:_MOST_TEXT])
