"""The pages of `pilothouse rollout incidents`: what was rolled back, why, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from pilothouse.delivery.resources.incidents import Evidence, Incident, Moment
from pilothouse.delivery.showing import aligned
from pilothouse.foundation.terminal import printable
from pilothouse.kinds import times
from pilothouse.kinds.ages import Ages, human_duration

__all__ = ["COLUMNS", "IncidentView", "page_of", "row_of", "view_of"]

COLUMNS: Final = ("namespace", "name", "rollout", "cause", "phase", "decided", "back in", "git", "message")
_NONE: Final = "-"


class IncidentView(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An incident as users read it. back_seconds: from the first bad answer, or the decision, to traffic being back."""

    namespace: str
    name: str
    rollout: str
    version: str
    cause: str
    message: str
    decided_at: str
    phase: str = ""
    application: str | None = None
    revisions: Sequence[str] = ()
    people: Sequence[str] = ()
    first_bad_at: str | None = None
    traffic_back_at: str | None = None
    back_seconds: float | None = None
    git: str | None = None
    git_message: str | None = None
    evidence: Sequence[Evidence] = ()
    samples: Sequence[str] = ()
    timeline: Sequence[Moment] = ()


def view_of(incident: Incident) -> IncidentView:
    """Return what there is to see of an incident."""
    spec, status = incident.spec, incident.status
    return IncidentView(
        namespace=incident.metadata.namespace,
        name=incident.metadata.name,
        rollout=spec.rollout,
        version=spec.version,
        cause=spec.cause,
        message=spec.message,
        decided_at=spec.decided_at,
        phase=status.phase or "",
        application=spec.application,
        revisions=spec.git_revisions,
        people=spec.people,
        first_bad_at=status.first_bad_at,
        traffic_back_at=status.traffic_back_at,
        back_seconds=_back(incident),
        git=status.git.state,
        git_message=status.git.message,
        evidence=status.evidence,
        samples=status.samples,
        timeline=status.timeline,
    )


def _back(incident: Incident) -> float | None:
    back = incident.status.traffic_back_at
    if not back:
        return None
    began = times.parse(incident.status.first_bad_at or incident.spec.decided_at)
    return round(max((times.parse(back) - began).total_seconds(), 0.0), 3)


# Lines


def row_of(view: IncidentView, now: datetime) -> dict[str, str]:
    """Return the row of a list."""
    cells = (
        view.namespace,
        view.name,
        view.rollout,
        view.cause,
        view.phase,
        Ages(now).since(view.decided_at),
        None if view.back_seconds is None else human_duration(view.back_seconds),
        view.git,
        view.message,
    )
    return {name: cell or _NONE for name, cell in zip(COLUMNS, cells, strict=True)}


def page_of(view: IncidentView, now: datetime) -> list[str]:
    """Return the page of one incident."""
    row = row_of(view, now)
    rows = [
        ("Name:", view.name),
        ("Namespace:", view.namespace),
        ("Rollout:", f"{view.rollout}, version {view.version}"),
        ("Cause:", f"{view.cause}: {view.message}"),
        ("Phase:", row["phase"]),
        ("Decided:", f"{view.decided_at} ({row['decided']} ago)"),
        ("Back in:", row["back in"]),
        ("Application:", view.application or ""),
        ("Commits:", ", ".join(each[:12] for each in view.revisions)),
        ("Git:", ": ".join(each for each in (view.git, view.git_message) if each)),
        ("People:", ", ".join(view.people)),
    ]
    made = aligned([(name.ljust(12), printable(value)) for name, value in rows if value])
    made += _evidence(view.evidence)
    if view.samples:
        made += ["", "SAMPLES", *map(printable, view.samples)]
    if view.timeline:
        moments = [[each.at, each.what, printable(each.message or "")] for each in view.timeline]
        made += ["", *aligned([["AT", "WHAT", "MESSAGE"], *moments])]
    return made


def _evidence(evidence: Sequence[Evidence]) -> list[str]:
    if not evidence:
        return []
    rows = [
        [each.metric, each.phase, _numbers(each.canary), _numbers(each.stable), each.message or each.value or ""]
        for each in evidence
    ]
    return [
        "",
        *aligned(
            [["METRIC", "PHASE", "CANARY", "STABLE", "MESSAGE"], *([printable(one) for one in row] for row in rows)]
        ),
    ]


def _numbers(found: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in found.items()) or _NONE
