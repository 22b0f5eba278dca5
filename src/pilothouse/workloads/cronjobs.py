"""Cron jobs: which start is due, what was missed, the jobs that are made, and which old ones go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pilothouse.kinds import times
from pilothouse.kinds.structs import CronJob, Job, ObjectMeta
from pilothouse.kinds.structs.core_references import ObjectReference
from pilothouse.operator.owners import owner_reference

from .jobs_status import finish_of, is_finished
from .schedules import Schedule, schedule, zone_of

__all__ = [
    "SCHEDULED_AT",
    "Due",
    "InvalidSchedule",
    "due",
    "is_too_late",
    "job_for",
    "last_success",
    "name_for",
    "reference_to",
    "schedule_of",
    "seconds_to_next",
    "surplus",
]

SCHEDULED_AT: Final = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_MANY: Final = 100
"""Missed starts from which on the user is told."""
_LATE: Final = timedelta(milliseconds=100)
"""After the due moment, so that clocks that differ a little miss none."""


class InvalidSchedule(ValueError):
    """A schedule that never comes about; its text is the reason."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is due. since: the start of the look back. at: the last moment not started yet. missed: about how many."""

    since: datetime
    at: datetime | None
    missed: int

    @property
    def many(self) -> bool:
        """Whether so many were missed that something is wrong."""
        return self.missed > _MANY


def schedule_of(cron_job: CronJob) -> Schedule:
    """Return the schedule. Raises ScheduleError and UnknownZone."""
    return schedule(cron_job.spec.schedule, cron_job.spec.time_zone or "")


def due(cron_job: CronJob, plan: Schedule, now: datetime, *, by_deadline: bool = True) -> Due:
    """Return what is due of a schedule. Raises InvalidSchedule for one that is never due.

    by_deadline: look back no further than starts may be late.
    """
    last = cron_job.status.last_schedule_time or cron_job.metadata.creation_timestamp
    since = now if last is None else times.parse(last)
    deadline = cron_job.spec.starting_deadline_seconds
    if by_deadline and deadline is not None:
        since = max(since, now - timedelta(seconds=deadline))
    first = plan.next(since)
    second = None if first is None else plan.next(first)
    if first is not None and now < first:
        return Due(since, None, 0)
    if first is not None and second is not None and now < second:
        return Due(since, first, 0)
    if first is None or second is None or second - first < timedelta(seconds=1):
        raise InvalidSchedule("time difference between two schedules is less than 1 second")
    return _missed(plan, since, first, second - first, now)


def _missed(plan: Schedule, since: datetime, first: datetime, gap: timedelta, now: datetime) -> Due:
    """Look for the last of several, from about two starts before it on: there may be very many."""
    missed = (now - first) // gap + 1
    found = None
    at = plan.next(first + (missed - 2) * gap)
    while at is not None and at <= now:
        found, at = at, plan.next(at)
    return Due(since, found, missed)


def seconds_to_next(cron_job: CronJob, plan: Schedule, now: datetime) -> float | None:
    """Return in how many seconds to look again, None where nothing is due any more."""
    try:
        found = due(cron_job, plan, now, by_deadline=False)
    except InvalidSchedule:
        since = now
    else:
        since = found.at or (now if found.missed else found.since)
    at = plan.next(since)
    return None if at is None else max(0.0, (at + _LATE - now).total_seconds())


def is_too_late(cron_job: CronJob, at: datetime, now: datetime) -> bool:
    """Whether a start that was due at a moment must not be made up for."""
    deadline = cron_job.spec.starting_deadline_seconds
    return deadline is not None and at + timedelta(seconds=deadline) < now


def name_for(cron_job: CronJob, at: datetime) -> str:
    """Return the name of the job of a moment: the same for all who would make it."""
    return f"{cron_job.metadata.name}-{int(at.timestamp()) // 60}"


def job_for(cron_job: CronJob, at: datetime) -> Job:
    """Make the job of a moment. Raises UnknownZone."""
    template = cron_job.spec.job_template
    local = at.astimezone(zone_of(cron_job.spec.time_zone or "")).isoformat(timespec="seconds")
    told = f"{local[:-6]}Z" if local.endswith("+00:00") else local
    return Job(
        metadata=ObjectMeta(
            name=name_for(cron_job, at),
            namespace=cron_job.metadata.namespace,
            labels=template.metadata.labels,
            annotations={**template.metadata.annotations, SCHEDULED_AT: told},
            owner_references=(owner_reference(cron_job),),
        ),
        spec=template.spec,
    )


def reference_to(job: Job) -> ObjectReference:
    """Return how the status names an active job."""
    metadata = job.metadata
    return ObjectReference(
        api_version="batch/v1",
        kind="Job",
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
    )


def surplus(cron_job: CronJob, jobs: Iterable[Job]) -> list[Job]:
    """Return the finished jobs beyond those that are kept, the ones that began first."""
    ended: dict[str, list[Job]] = {"Complete": [], "Failed": []}
    for job in jobs:
        finish = finish_of(job)
        if finish is not None:
            ended[finish.type].append(job)
    spec = cron_job.spec
    return [
        *_oldest(ended["Complete"], spec.successful_jobs_history_limit),
        *_oldest(ended["Failed"], spec.failed_jobs_history_limit),
    ]


def _oldest(jobs: Sequence[Job], keep: int | None) -> list[Job]:
    if keep is None or len(jobs) <= keep:
        return []
    return sorted(jobs, key=_beginning)[: len(jobs) - keep]


def _beginning(job: Job) -> tuple[datetime, str]:
    began = job.status.start_time
    return (datetime.max.replace(tzinfo=UTC) if began is None else times.parse(began)), job.metadata.name


def last_success(cron_job: CronJob, jobs: Iterable[Job]) -> str | None:
    """Return when a job completed last, of those there are and those that were seen."""
    found = cron_job.status.last_successful_time
    for job in jobs:
        end = job.status.completion_time
        if (
            end is None
            or not is_finished(job)
            or not any(one.type == "Complete" and one.status == "True" for one in job.status.conditions)
        ):
            continue
        if found is None or times.parse(end) > times.parse(found):
            found = end
    return found
