"""Incident: what is kept of a rollback that analysis or a deadline decided: why, when, and what became of it.

It is nobody's property: it stays when its Rollout goes, since that is when people want to read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pilothouse.kinds.structs import Resource, Struct
from pilothouse.operator.crd_markers import Timestamp
from pilothouse.operator.crds import PrinterColumn, custom_resource

from .servicelevels import GROUP

__all__ = ["GROUP", "Evidence", "GitReturn", "Incident", "IncidentSpec", "IncidentStatus", "Moment"]


class IncidentSpec(Struct):
    """`spec`: what was known when it was decided. cause: Analysis, Experiment or Deadline.

    version, stable: hashes of pod templates. revision: of the Rollout, a number. git_revisions: that contain the bad
    version, the one that brought it first; good_revision: the one before. application: NAMESPACE/NAME.
    """

    rollout: str
    version: str
    decided_at: Timestamp
    cause: str
    message: str
    rollout_uid: str | None = None
    stable: str | None = None
    revision: str | None = None
    started_at: Timestamp | None = None
    application: str | None = None
    git_revisions: Sequence[str] = ()
    good_revision: str | None = None
    people: Sequence[str] = ()


class Moment(Struct):
    """A point of the timeline. what: a word, such as Decided; message: for people."""

    at: Timestamp
    what: str
    message: str | None = None


class Evidence(Struct):
    """What a metric measured. value: of its last measurement; canary, stable: the numbers in it, side by side."""

    run: str
    metric: str
    phase: str
    message: str | None = None
    value: str | None = None
    canary: Mapping[str, str] = {}
    stable: Mapping[str, str] = {}


class GitReturn(Struct):
    """What became of it in git. rejected: the revisions that are pinned as bad.

    state: of the revert: Off, Pending, Reverted, NotNeeded or Failed. attempts, next_at: while it is Pending.
    """

    rejected: Sequence[str] = ()
    rejected_at: Timestamp | None = None
    state: str | None = None
    message: str | None = None
    branch: str | None = None
    commit: str | None = None
    attempts: int = 0
    next_at: Timestamp | None = None
    ended_at: Timestamp | None = None


class IncidentStatus(Struct):
    """`status`. phase: Open until all is back, then Closed."""

    phase: str | None = None
    first_bad_at: Timestamp | None = None
    traffic_back_at: Timestamp | None = None
    replicas_down_at: Timestamp | None = None
    evidence: Sequence[Evidence] = ()
    samples: Sequence[str] = ()
    git: GitReturn = GitReturn()
    timeline: Sequence[Moment] = ()


_COLUMNS: Final = (
    PrinterColumn("Rollout", ".spec.rollout", "string"),
    PrinterColumn("Cause", ".spec.cause", "string"),
    PrinterColumn("Phase", ".status.phase", "string"),
    PrinterColumn("Decided", ".spec.decidedAt", "date"),
    PrinterColumn("Git", ".status.git.state", "string"),
    PrinterColumn("Message", ".spec.message", "string", priority=1),
    PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
)


@custom_resource(short_names=["inc"], columns=_COLUMNS)
class Incident(Resource, group=GROUP, version="v1alpha1", plural="incidents"):
    """A rollback, why it was, and what became of it."""

    spec: IncidentSpec
    status: IncidentStatus = IncidentStatus()
