"""The controller of cron jobs: a job whenever one is due, and no more old ones than are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Final

from pilothouse.client import ignore_not_found
from pilothouse.kinds import times
from pilothouse.kinds.status import AlreadyExists, ApiStatus
from pilothouse.kinds.structs import CronJob, Job, replace
from pilothouse.kinds.structs.core_references import ObjectReference
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.owners import is_controlled_by
from pilothouse.workloads.cronjobs import (
    InvalidSchedule,
    due,
    is_too_late,
    job_for,
    last_success,
    name_for,
    reference_to,
    schedule_of,
    seconds_to_next,
    surplus,
)
from pilothouse.workloads.jobs_status import finish_of, is_finished
from pilothouse.workloads.podcontrol import is_namespace_ending
from pilothouse.workloads.schedules import Schedule, ScheduleError, UnknownZone, zone_of

__all__ = ["CronJobReconciler", "add_cronjobs"]

_CONCURRENCY: Final = 5
_MAX_REMEMBERED: Final = 20_000


class CronJobReconciler(Reconciler[CronJob]):
    """Starts jobs by the clock."""

    def __init__(self) -> None:
        self._plans: OrderedDict[str, tuple[str, str | None]] = OrderedDict()

    async def reconcile(self, obj: CronJob, context: Context) -> Result | None:
        """Note which jobs ended, delete those beyond the history, and start one that is due."""
        if self._is_new_plan(obj):
            # What the new schedule would have started before is not made up for.
            try:
                return Result(requeue_after=seconds_to_next(obj, schedule_of(obj), context.clock.now()))
            except (ScheduleError, UnknownZone):
                pass
        turn = _Turn(obj, context)
        try:
            return Result(requeue_after=await turn.run())
        finally:
            if turn.cron_job.status != obj.status:
                await context.update_status(turn.cron_job)

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Take note that a cron job is gone; its jobs go by garbage collection."""
        return None

    def _is_new_plan(self, obj: CronJob) -> bool:
        plan, uid = (obj.spec.schedule, obj.spec.time_zone), obj.metadata.uid
        before = self._plans.pop(uid, plan)
        self._plans[uid] = plan
        if len(self._plans) > _MAX_REMEMBERED:
            self._plans.popitem(last=False)
        return before != plan


class _Turn:
    """One reconcile of a cron job, whose status gathers what happened."""

    def __init__(self, cron_job: CronJob, context: Context) -> None:
        self.cron_job = cron_job
        self._context = context
        self._now = context.clock.now()

    async def run(self) -> float | None:
        """Do it; return in how many seconds to look again."""
        jobs = self._context.owned(Job, self.cron_job)
        for job in surplus(self.cron_job, jobs):
            await self._delete(job)
        await self._observe(jobs)
        if self.cron_job.metadata.deletion_timestamp is not None:
            return None
        plan = self._plan()
        return None if plan is None else await self._start(plan)

    async def _observe(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if not is_finished(job):
                await self._expect(job)
            elif self._is_active(job.metadata.uid):
                finish = finish_of(job)
                self._forget(job.metadata.uid)
                what = f"Saw completed job: {job.metadata.name}, condition: {finish.type if finish else ''}"
                self._tell("SawCompletedJob", what)
        self._set(last_successful_time=last_success(self.cron_job, jobs))
        there = {job.metadata.uid for job in jobs}
        for reference in self.cron_job.status.active:
            if reference.uid in there or await self._find(reference) is not None:
                continue
            self._tell("MissingJob", f"Active job went missing: {reference.name}")
            self._forget(reference.uid)

    async def _expect(self, job: Job) -> None:
        """Take note of a running job: one that the status does not know is told of, unless the server's knows it."""
        if self._is_active(job.metadata.uid):
            return
        metadata = self.cron_job.metadata
        fresh = await self._context.client.get(CronJob, metadata.name, metadata.namespace)
        if any(found.uid == job.metadata.uid for found in fresh.status.active):
            self.cron_job = fresh
            return
        what = f"Saw a job that the controller did not create or forgot: {job.metadata.name}"
        self._tell("UnexpectedJob", what, warning=True)

    def _plan(self) -> Schedule | None:
        """Return the schedule, None where no job is to start; why is told where it is a fault."""
        spec = self.cron_job.spec
        try:
            zone_of(spec.time_zone or "")
        except UnknownZone as error:
            self._tell("UnknownTimeZone", f'invalid timeZone: "{spec.time_zone}": {error}', warning=True)
            return None
        if spec.suspend:
            return None
        if "TZ" in spec.schedule:
            what = (
                f'CRON_TZ or TZ used in schedule "{spec.schedule}" is not officially supported, see '
                "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            )
            self._tell("UnsupportedSchedule", what, warning=True)
        try:
            return schedule_of(self.cron_job)
        except (ScheduleError, UnknownZone) as error:
            self._tell("UnparseableSchedule", f'unparseable schedule: "{spec.schedule}" : {error}', warning=True)
            return None

    async def _start(self, plan: Schedule) -> float | None:
        cron_job, now = self.cron_job, self._now
        try:
            found = due(cron_job, plan, now)
        except InvalidSchedule as error:
            self._tell("InvalidSchedule", f"invalid schedule: {cron_job.spec.schedule} : {error}", warning=True)
            return None
        if found.at is not None:
            if found.many:
                what = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
                self._tell("TooManyMissedTimes", what, warning=True)
            await self._start_at(found.at)
        return seconds_to_next(self.cron_job, plan, now)

    async def _start_at(self, at: datetime) -> None:
        """Start the job of a moment, unless that is too late, done already, or another one forbids it."""
        if is_too_late(self.cron_job, at, self._now):
            moment = format_datetime(at, usegmt=True).replace("GMT", "UTC")
            self._tell("MissSchedule", f"Missed scheduled time to start a job: {moment}", warning=True)
            return
        status, name = self.cron_job.status, name_for(self.cron_job, at)
        if status.last_schedule_time == times.format_seconds(at) or any(one.name == name for one in status.active):
            return
        policy = self.cron_job.spec.concurrency_policy
        if policy == "Forbid" and status.active:
            what = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._tell("JobAlreadyActive", what)
            return
        for reference in status.active if policy == "Replace" else ():
            await self._replace(reference)
        made = await self._create(job_for(self.cron_job, at))
        if made is not None:
            self._set(active=[*self.cron_job.status.active, reference_to(made)])
            self._set(last_schedule_time=times.format_seconds(at))

    async def _create(self, wanted: Job) -> Job | None:
        """Create a job; return it, None where it is there already and known, or somebody else's."""
        try:
            made = await self._context.create(wanted)
        except AlreadyExists:
            # Made before, and then the status was not written: it is now.
            there = await self._context.client.get(Job, wanted.metadata.name, wanted.metadata.namespace)
            known = self._is_active(there.metadata.uid) or not is_controlled_by(there, self.cron_job)
            return None if known else there
        except ApiStatus as error:
            if not is_namespace_ending(error):
                self._tell("FailedCreate", f"Error creating job: {error.message}", warning=True)
            raise
        self._tell("SuccessfulCreate", f"Created job {made.metadata.name}")
        return made

    async def _replace(self, reference: ObjectReference) -> None:
        try:
            job = await self._context.client.get(Job, reference.name, reference.namespace)
        except ApiStatus as error:
            self._tell("FailedGet", f"Get job: {error.message}", warning=True)
            raise
        if (refused := await self._delete(job)) is not None:
            raise refused

    async def _delete(self, job: Job) -> ApiStatus | None:
        """Delete a job and forget it; return why not where it was refused."""
        try:
            await self._context.delete(job)
        except ApiStatus as error:
            self._tell("FailedDelete", f"Deleted job: {error.message}", warning=True)
            return error
        self._forget(job.metadata.uid)
        self._tell("SuccessfulDelete", f"Deleted job {job.metadata.name}")
        return None

    async def _find(self, reference: ObjectReference) -> Job | None:
        return await ignore_not_found(self._context.client.get(Job, reference.name, reference.namespace))

    def _is_active(self, uid: str) -> bool:
        return any(found.uid == uid for found in self.cron_job.status.active)

    def _forget(self, uid: str) -> None:
        if self._is_active(uid):
            self._set(active=[found for found in self.cron_job.status.active if found.uid != uid])

    def _set(self, **changes: Any) -> None:
        self.cron_job = replace(self.cron_job, status=replace(self.cron_job.status, **changes))

    def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        tell = self._context.recorder.warning if warning else self._context.recorder.normal
        tell(self.cron_job, reason, message)


def add_cronjobs(manager: Manager) -> None:
    """Add the controller of cron jobs."""
    (
        controller(manager, "cronjob-controller")
        .for_(CronJob)
        .owns(Job)
        .with_options(concurrency=_CONCURRENCY)
        .build(CronJobReconciler())
    )
