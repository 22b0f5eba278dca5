"""A job's status: pods counted once and for all, and the conditions that say how it goes and how it ended. Pure.

A pod that ended keeps a finalizer until it is counted. First its UID is written to `uncountedTerminatedPods`, then its
finalizer is removed, then it moves from there to the numbers: wherever this stops, no pod is lost or counted twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pilothouse.kinds import times
from pilothouse.kinds.structs import Job, replace
from pilothouse.kinds.structs.batch import JobCondition, JobStatus, UncountedTerminatedPods

__all__ = [
    "MAX_UNCOUNTED",
    "Counts",
    "begun",
    "condition_of",
    "counted",
    "final_condition",
    "finish_of",
    "finished",
    "is_finished",
    "is_suspended",
    "made_condition",
    "suspended_or_resumed",
    "with_target",
]

MAX_UNCOUNTED: Final = 500
"""UIDs in a status at most: it must not get too large, and one job must not keep others waiting."""
_FINISHED: Final = ("Complete", "Failed")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many pods are active, ready, and being deleted."""

    active: int
    ready: int
    terminating: int


def is_suspended(job: Job) -> bool:
    """Whether a job is to have no pods for now."""
    return bool(job.spec.suspend)


def condition_of(job: Job, kind: str) -> JobCondition | None:
    """Return the condition of a type if it is true."""
    return next((found for found in job.status.conditions if found.type == kind and found.status == "True"), None)


def finish_of(job: Job) -> JobCondition | None:
    """Return the condition Complete or Failed if one is true."""
    return next((found for found in job.status.conditions if found.type in _FINISHED and found.status == "True"), None)


def is_finished(job: Job) -> bool:
    """Whether a job has ended for good."""
    return finish_of(job) is not None


def made_condition(kind: str, reason: str, message: str, now: datetime, status: str = "True") -> JobCondition:
    """Make a condition that changed now."""
    moment = times.format_seconds(now)
    return JobCondition(
        type=kind,
        status=status,
        last_probe_time=moment,
        last_transition_time=moment,
        reason=reason,
        message=message,
    )


def begun(job: Job, now: datetime) -> Job:
    """Return a job that has begun, unless it did before or is suspended, with all fields that a status has."""
    status = job.status
    if status.uncounted_terminated_pods is None:
        status = replace(status, uncounted_terminated_pods=UncountedTerminatedPods())
    if status.start_time is None and not is_suspended(job):
        status = replace(status, start_time=times.format_seconds(now))
    return job if status is job.status else replace(job, status=status)


def suspended_or_resumed(job: Job, now: datetime) -> JobStatus:
    """Return the status of a job that goes on, or does not for now; the same one where that was told already.

    The time that a job may be active begins anew when it is resumed.
    """
    status = job.status
    if is_suspended(job):
        wanted = made_condition("Suspended", "JobSuspended", "Job suspended", now)
    else:
        wanted = made_condition("Suspended", "JobResumed", "Job resumed", now, "False")
    place = next((at for at, found in enumerate(status.conditions) if found.type == "Suspended"), None)
    if place is None:
        if wanted.status == "False":
            return status
        conditions = [*status.conditions, wanted]
    else:
        present = status.conditions[place]
        if (present.status, present.reason, present.message) == (wanted.status, wanted.reason, wanted.message):
            return status
        conditions = [*status.conditions]
        conditions[place] = wanted
    began = None if is_suspended(job) else times.format_seconds(now)
    return replace(status, conditions=conditions, start_time=began)


def with_target(status: JobStatus, end: JobCondition | None) -> JobStatus:
    """Return the status with the condition that a job is about to end by, where it does not have that yet."""
    if end is None or end.type not in ("FailureTarget", "SuccessCriteriaMet"):
        return status
    if any(found.type == end.type and found.status == "True" for found in status.conditions):
        return status
    return replace(status, conditions=[*status.conditions, end])


def final_condition(end: JobCondition | None, now: datetime) -> JobCondition | None:
    """Return the condition that a job ends with when all its pods are counted."""
    if end is None:
        return None
    kind = {"FailureTarget": "Failed", "SuccessCriteriaMet": "Complete"}.get(end.type, end.type)
    return made_condition(kind, end.reason, end.message, now)


def counted(status: JobStatus, waiting: Collection[str]) -> JobStatus:
    """Return the status in which uncounted pods whose finalizers are gone are numbers.

    waiting: UIDs of pods that have the finalizer yet.
    """
    uncounted = status.uncounted_terminated_pods or UncountedTerminatedPods()
    well = [uid for uid in uncounted.succeeded if uid in waiting]
    ill = [uid for uid in uncounted.failed if uid in waiting]
    more_well, more_ill = len(uncounted.succeeded) - len(well), len(uncounted.failed) - len(ill)
    if not more_well and not more_ill:
        return status
    return replace(
        status,
        succeeded=status.succeeded + more_well,
        failed=status.failed + more_ill,
        uncounted_terminated_pods=UncountedTerminatedPods(succeeded=well, failed=ill),
    )


def finished(status: JobStatus, end: JobCondition | None) -> JobStatus | None:
    """Return the status of a job that ends, None where it does not or pods are still to be counted or to go."""
    uncounted = status.uncounted_terminated_pods
    if end is None or status.terminating or (uncounted is not None and (uncounted.succeeded or uncounted.failed)):
        return None
    conditions: Sequence[JobCondition] = [*(found for found in status.conditions if found.type != end.type), end]
    if end.type != "Complete":
        return replace(status, conditions=conditions)
    return replace(status, conditions=conditions, completion_time=end.last_transition_time)
