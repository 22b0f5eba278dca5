"""The controller of jobs: pods until enough of them have succeeded or too many failed, each counted once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from pilothouse.client import ignore_not_found
from pilothouse.client.packed import of_head
from pilothouse.client.patches import StrategicPatch
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.labels import Selector, SelectorError, from_label_selector
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import Job, Pod, Resource, replace, to_dict
from pilothouse.kinds.structs.batch import JobCondition, JobStatus
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.owners import controller_of
from pilothouse.workloads.jobs import (
    FINALIZER,
    Seen,
    end_of,
    is_complete,
    is_foreign,
    is_tracked,
    look,
    plan,
    seconds_left,
)
from pilothouse.workloads.jobs_backoff import NO_FAILURES, Failures
from pilothouse.workloads.jobs_pods import pods_for
from pilothouse.workloads.jobs_status import (
    Counts,
    begun,
    counted,
    finished,
    is_finished,
    is_suspended,
    made_condition,
    suspended_or_resumed,
)
from pilothouse.workloads.jobs_tracking import Tracking, track
from pilothouse.workloads.podcontrol import claimed, create_pods, delete_pods
from pilothouse.workloads.pods import is_ready
from pilothouse.workloads.sources import controller_or_adopters

__all__ = ["JobReconciler", "add_jobs"]

_CONCURRENCY: Final = 5
_PACING_SECONDS: Final = 0.25
"""Between two reconciles of one job: its pods change one by one, and each time all of them are looked at."""
_MAX_REMEMBERED: Final = 20_000
_OF_JOB: Final = "pods-of-job"
_log = get_logger("pilothouse.workloads.job")


class _Managed(NamedTuple):
    """What became of a job's pods. again: seconds until more may be made. refused: the first write that was."""

    counts: Counts
    again: float | None = None
    refused: ApiStatus | None = None


class JobReconciler(Reconciler[Job]):
    """Runs jobs to their ends."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, Failures] = OrderedDict()

    async def reconcile(self, obj: Job, context: Context) -> Result | None:
        """Make or delete pods, count those that ended, and end the job when it is time."""
        if is_foreign(obj):
            return None
        if is_finished(obj):
            self._failures.pop(obj.metadata.uid, None)
            await _release_left(context, [pod for pod in context.owned(Pod, obj) if is_tracked(pod)])
            return None
        try:
            selector = _selector_of(obj)
        except SelectorError as error:
            _log.error("a selector cannot be read", kind="Job", request=str(context.request), error=str(error))
            return None
        orphans = context.orphans(Pod)
        pods = await claimed(context, obj, selector, [*context.owned(Pod, obj), *orphans], FINALIZER)
        taken = {pod.metadata.uid for pod in pods}
        await _release_left(context, [pod for pod in orphans if is_tracked(pod) and pod.metadata.uid not in taken])
        return await self._run(obj, pods, context)

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Let the pods go that a job left, and those that nobody has: no job will count them any more."""
        left = [*context.indexed(Pod, _OF_JOB, str(request)), *context.orphans(Pod)]
        await _release_left(context, filter(is_tracked, left))
        return None

    async def _run(self, obj: Job, pods: Sequence[Pod], context: Context) -> Result | None:
        now = context.clock.now()
        seen = look(begun(obj, now), pods, self._failures.get(obj.metadata.uid, NO_FAILURES))
        status, end = seen.job.status, end_of(seen, now)
        if end is not None:
            managed = await _delete_all(seen, context)
            end = None if managed.refused is not None else end
        else:
            managed = await _manage(seen, context)
            if is_complete(seen, managed.counts.active):
                what = "Reached expected number of succeeded pods"
                end = made_condition("SuccessCriteriaMet", "CompletionsReached", what, now)
            elif obj.metadata.deletion_timestamp is None:
                status = _told(seen.job, suspended_or_resumed(seen.job, now), context)
        await self._conclude(obj, seen, track(seen, status, managed.counts, end, now), context)
        if managed.refused is not None:
            raise managed.refused
        waits = [managed.again, seconds_left(seen.job, now) if end is None else None]
        return Result(requeue_after=min((wait for wait in waits if wait), default=None))

    async def _conclude(self, obj: Job, seen: Seen, tracking: Tracking, context: Context) -> None:
        """Write which pods are to be counted, release them, count them; then end the job if it is time."""
        job = await _update(obj, tracking.status, context)
        self._remember(obj, seen.failures)
        released, refused = await _release(context, tracking.release)
        status = counted(job.status, tracking.waiting - released)
        ended = None if refused is not None else finished(status, tracking.end)
        job = await _update(job, ended or status, context)
        if refused is not None:
            raise refused
        if ended is not None and tracking.end is not None:
            _tell_end(job, tracking.end, context)

    def _remember(self, obj: Job, failures: Failures) -> None:
        if failures == NO_FAILURES:
            self._failures.pop(obj.metadata.uid, None)
            return
        self._failures[obj.metadata.uid] = failures
        if len(self._failures) > _MAX_REMEMBERED:
            self._failures.popitem(last=False)


async def _update(job: Job, status: JobStatus, context: Context) -> Job:
    return job if status == job.status else await context.update_status(replace(job, status=status))


def _told(job: Job, status: JobStatus, context: Context) -> JobStatus:
    if status is not job.status:
        reason = "Suspended" if is_suspended(job) else "Resumed"
        context.recorder.normal(job, reason, f"Job {reason.lower()}")
    return status


def _tell_end(job: Job, end: JobCondition, context: Context) -> None:
    if end.type == "Failed":
        context.recorder.warning(job, end.reason, end.message)
        return
    if job.spec.completions is not None and job.status.succeeded > job.spec.completions:
        what = "Too many succeeded pods running after completion count reached"
        context.recorder.warning(job, "TooManySucceededPods", what)
    context.recorder.normal(job, "Completed", "Job completed")


async def _delete_all(seen: Seen, context: Context) -> _Managed:
    """Delete the active pods of a job that ends; they keep their finalizers until they are counted."""
    refused = await delete_pods(context, seen.job, seen.active)
    return _after_deletion(seen, seen.active, context, refused)


async def _manage(seen: Seen, context: Context) -> _Managed:
    counts = Counts(len(seen.active), seen.ready, seen.terminating)
    if seen.job.metadata.deletion_timestamp is not None:
        return _Managed(counts)
    todo = plan(seen, context.clock.now())
    if todo.delete:
        # These are deleted because they are not needed, so they do not count as failed.
        _, refused = await _release(context, todo.delete)
        refused = refused or await delete_pods(context, seen.job, todo.delete)
        return _after_deletion(seen, todo.delete, context, refused)
    if todo.wait:
        # No pod counts as active while the next one waits for its back-off, as Kubernetes has it.
        return _Managed(_with_active(counts, 0), todo.wait)
    if not todo.create:
        return _Managed(counts)
    before = {pod.metadata.uid for pod in context.owned(Pod, seen.job)}
    refused = await create_pods(context, seen.job, pods_for(seen.job, todo.create, seen.waiting))
    made = sum(pod.metadata.uid not in before for pod in context.owned(Pod, seen.job))
    return _Managed(_with_active(counts, counts.active + made), None, refused)


def _with_active(counts: Counts, active: int) -> Counts:
    """Return counts with another number of active pods."""
    return Counts(active, counts.ready, counts.terminating)


def _after_deletion(seen: Seen, pods: Sequence[Pod], context: Context, refused: ApiStatus | None) -> _Managed:
    gone = [pod for pod in pods if refused is None or _is_going(pod, context)]
    counts = Counts(
        active=len(seen.active) - len(gone),
        ready=seen.ready - sum(map(is_ready, gone)),
        terminating=seen.terminating + len(gone),
    )
    return _Managed(counts, None, refused)


def _is_going(pod: Pod, context: Context) -> bool:
    there = context.get(Pod, pod.metadata.name)
    return there is None or there.metadata.deletion_timestamp is not None


async def _release(context: Context, pods: Iterable[Pod]) -> tuple[set[str], ApiStatus | None]:
    """Take the finalizer from pods; return the UIDs of those that have it no more, and the first refusal."""
    patch = StrategicPatch({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}})

    async def release(pod: Pod) -> str | ApiStatus:
        try:
            if is_tracked(pod):
                await ignore_not_found(context.patch(pod, patch))
        except ApiStatus as error:
            return error
        return pod.metadata.uid

    answers = await asyncio.gather(*map(release, pods))
    refused = next((answer for answer in answers if isinstance(answer, ApiStatus)), None)
    return {answer for answer in answers if isinstance(answer, str)}, refused


async def _release_left(context: Context, pods: Iterable[Pod]) -> None:
    _, refused = await _release(context, pods)
    if refused is not None:
        raise refused


def _selector_of(obj: Job) -> Selector:
    return from_label_selector(None if obj.spec.selector is None else to_dict(obj.spec.selector))


@of_head
def _job_of(pod: Pod) -> Iterable[str]:
    owner = controller_of(pod)
    if owner is None or owner.kind != "Job":
        return ()
    return (f"{pod.metadata.namespace}/{owner.name}",)


def add_jobs(manager: Manager) -> None:
    """Add the controller of jobs."""
    manager.index(Pod, _OF_JOB, _job_of)
    controllers = controller_or_adopters(manager, Job, _selector_of)

    def of_pod(obj: Resource) -> Iterable[Request]:
        """Wake a pod's job; for a pod that nobody has and none will count, a job by its name, which there is not."""
        if FINALIZER in obj.metadata.finalizers and controller_of(obj) is None:
            return [*controllers(obj), Request.of(obj)]
        return controllers(obj)

    (
        controller(manager, "job-controller")
        .for_(Job)
        .watches(Pod, of_pod)
        .with_options(concurrency=_CONCURRENCY, pacing_seconds=_PACING_SECONDS)
        .build(JobReconciler())
    )
