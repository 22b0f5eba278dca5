"""Jobs: what their pods look like, whether a job has ended, and which pods to make or to delete. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pilothouse.kinds import times
from pilothouse.kinds.structs import Job, Pod
from pilothouse.kinds.structs.batch import JobCondition

from .jobs_backoff import Failures, finished_at, index_wait, wait
from .jobs_indexes import Indexes, all_failures, failures, index_of
from .jobs_policies import has_failed, judge, replaces_failed_only, success_by_policy
from .jobs_status import condition_of, is_suspended, made_condition
from .podcontrol import BURST
from .pods import is_active, is_ready, is_terminating, max_restarts

__all__ = [
    "CONTROLLER",
    "FINALIZER",
    "Plan",
    "Seen",
    "end_of",
    "is_complete",
    "is_foreign",
    "is_indexed",
    "is_tracked",
    "limits_indexes",
    "look",
    "plan",
    "seconds_left",
]

FINALIZER: Final = "batch.kubernetes.io/job-tracking"
CONTROLLER: Final = "kubernetes.io/job-controller"
_NONE: Final = Indexes()
_PHASES: Final = {"Pending": 0, "Unknown": 1, "Running": 2}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a job's pods look like.

    new_succeeded, new_failed: ended and not in the status yet. succeeded, failed: how many there are with them. done,
    broken: indexes that succeeded, and those that failed for good. waiting: by index the failed pod that stays until
    it is replaced. failures: for the back-off.
    """

    job: Job
    pods: Sequence[Pod]
    active: Sequence[Pod]
    ready: int
    terminating: int
    new_succeeded: Sequence[Pod]
    new_failed: Sequence[Pod]
    succeeded: int
    failed: int
    done: Indexes
    broken: Indexes
    waiting: dict[int, Pod]
    failures: Failures


@dataclass(frozen=True, slots=True)
class Plan:
    """Which pods to delete, for which indexes to make some (None without indexes), or how long to wait with that."""

    delete: Sequence[Pod] = ()
    create: Sequence[int | None] = ()
    wait: float = 0.0


def is_foreign(job: Job) -> bool:
    """Whether another controller runs a job."""
    return job.spec.managed_by not in (None, "", CONTROLLER)


def is_indexed(job: Job) -> bool:
    """Whether each pod of a job has an index."""
    return job.spec.completion_mode == "Indexed"


def limits_indexes(job: Job) -> bool:
    """Whether each index may fail a number of times."""
    return is_indexed(job) and job.spec.backoff_limit_per_index is not None


def is_tracked(pod: Pod) -> bool:
    """Whether a pod waits to be counted."""
    return FINALIZER in pod.metadata.finalizers


def look(job: Job, pods: Sequence[Pod], failures_before: Failures) -> Seen:
    """Return what a job's pods look like. failures_before: as the last look left it."""
    status = job.status
    uncounted = status.uncounted_terminated_pods
    counted_well = frozenset(uncounted.succeeded if uncounted else ())
    counted_ill = frozenset(uncounted.failed if uncounted else ())
    active = [pod for pod in pods if is_active(pod)]
    tracked = [pod for pod in pods if is_tracked(pod) and _is_valid(job, pod)]
    well = [pod for pod in tracked if pod.status.phase == "Succeeded" and pod.metadata.uid not in counted_well]
    ill = [pod for pod in tracked if has_failed(pod, job) and pod.metadata.uid not in counted_ill]
    policy = job.spec.pod_failure_policy
    failed = status.failed + sum(judge(policy, pod).counts for pod in ill) + len(counted_ill)
    done = broken = _NONE
    if is_indexed(job):
        done = _succeeded_indexes(job, tracked)
    if limits_indexes(job):
        broken = _failed_indexes(job, tracked)
    return Seen(
        job=job,
        pods=pods,
        active=active,
        ready=sum(map(is_ready, active)),
        terminating=sum(map(is_terminating, pods)),
        new_succeeded=well,
        new_failed=ill,
        succeeded=len(done) if is_indexed(job) else status.succeeded + len(well) + len(counted_well),
        failed=failed,
        done=done,
        broken=broken,
        waiting=_waiting(job, tracked, active, done | broken) if limits_indexes(job) else {},
        failures=failures_before.after(well, ill),
    )


def _is_valid(job: Job, pod: Pod) -> bool:
    """Whether a pod counts: of an indexed job, one with an index that there is."""
    if not is_indexed(job):
        return True
    index = index_of(pod)
    return index is not None and index < (job.spec.completions or 0)


def _succeeded_indexes(job: Job, tracked: Sequence[Pod]) -> Indexes:
    new = (index_of(pod) for pod in tracked if pod.status.phase == "Succeeded")
    before = Indexes.read(job.status.completed_indexes, job.spec.completions or 0)
    return before | Indexes.of(index for index in new if index is not None)


def _failed_indexes(job: Job, tracked: Sequence[Pod]) -> Indexes:
    new = (index_of(pod) for pod in tracked if _ends_index(job, pod))
    before = Indexes.read(job.status.failed_indexes or "", job.spec.completions or 0)
    return before | Indexes.of(index for index in new if index is not None)


def _ends_index(job: Job, pod: Pod) -> bool:
    if not has_failed(pod, job):
        return False
    found = judge(job.spec.pod_failure_policy, pod)
    return found.action == "FailIndex" or (found.counts and failures(pod) >= (job.spec.backoff_limit_per_index or 0))


def _waiting(job: Job, tracked: Sequence[Pod], active: Sequence[Pod], ended: Indexes) -> dict[int, Pod]:
    """Return by index the last failed pod of those that have none now and need one."""
    taken = ended | Indexes.of(index for pod in active if (index := index_of(pod)) is not None)
    found: dict[int, Pod] = {}
    for pod in tracked:
        index = index_of(pod)
        if index is None or index in taken or not has_failed(pod, job):
            continue
        present = found.get(index)
        if present is None or (all_failures(present) <= all_failures(pod) and finished_at(present) <= finished_at(pod)):
            found[index] = pod
    return found


def seconds_left(job: Job, now: datetime) -> float | None:
    """Return how many seconds a job may still be active, 0 where they are over, None where there is no limit."""
    limit, began = job.spec.active_deadline_seconds, job.status.start_time
    if limit is None or began is None or is_suspended(job):
        return None
    return max(0.0, limit - (now - times.parse(began)).total_seconds())


def end_of(seen: Seen, now: datetime) -> JobCondition | None:
    """Return the condition that ends a job, None while it goes on.

    That is SuccessCriteriaMet or FailureTarget at first, Failed where FailureTarget is in the status already. Whether
    as many pods as wanted succeeded is not asked here, see `is_complete`.
    """
    job = seen.job
    met = condition_of(job, "SuccessCriteriaMet")
    if met is not None:
        return met
    target = condition_of(job, "FailureTarget")
    if target is not None:
        return made_condition("Failed", target.reason, target.message, now)
    failed = _failure_of(seen, now)
    if failed is not None:
        return made_condition("FailureTarget", *failed, now)
    if is_indexed(job):
        why = success_by_policy(job.spec.success_policy, job.spec.completions or 0, seen.done)
        if why:
            return made_condition("SuccessCriteriaMet", "SuccessPolicy", why, now)
    return None


def _failure_of(seen: Seen, now: datetime) -> tuple[str, str] | None:
    job, spec = seen.job, seen.job.spec
    for pod in seen.pods if spec.pod_failure_policy is not None else ():
        if has_failed(pod, job) and (why := judge(spec.pod_failure_policy, pod).fails_job):
            return "PodFailurePolicy", why
    if seen.failed > _limit(job) or _restarts_exceed(job, seen.pods):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    if seconds_left(job, now) == 0.0:
        return "DeadlineExceeded", "Job was active longer than specified deadline"
    if limits_indexes(job) and seen.broken:
        if spec.max_failed_indexes is not None and len(seen.broken) > spec.max_failed_indexes:
            return "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
        if len(seen.broken) + len(seen.done) >= (spec.completions or 0):
            return "FailedIndexes", "Job has failed indexes"
    return None


def _limit(job: Job) -> int:
    limit = job.spec.backoff_limit
    return 6 if limit is None else limit


def _restarts_exceed(job: Job, pods: Sequence[Pod]) -> bool:
    """Whether containers that are restarted within their pods were so too often together."""
    if job.spec.template.spec.restart_policy != "OnFailure":
        return False
    restarts = sum(
        status.restart_count
        for pod in pods
        if pod.status.phase in ("Running", "Pending")
        for status in (*pod.status.init_container_statuses, *pod.status.container_statuses)
    )
    return restarts >= max(_limit(job), 1)


def is_complete(seen: Seen, active: int) -> bool:
    """Whether as many pods have succeeded as wanted, and none is active any more."""
    wanted = seen.job.spec.completions
    return active == 0 and seen.succeeded >= (1 if wanted is None else wanted)


def plan(seen: Seen, now: datetime) -> Plan:
    """Return which pods to delete or to make; never both at once, deleting first."""
    job, active = seen.job, len(seen.active)
    if is_suspended(job):
        return Plan(delete=_for_removal(seen, active))
    wanted = _wanted(seen)
    surplus = _for_removal(seen, max(0, active - wanted))[:BURST]
    if surplus:
        return Plan(delete=surplus)
    missing = wanted - active - (seen.terminating if replaces_failed_only(job) else 0)
    if missing <= 0:
        return Plan()
    pause = 0.0 if limits_indexes(job) else wait(seen.failures, now)
    if pause:
        return Plan(wait=pause)
    missing = min(missing, BURST)
    return _indexes_to_make(seen, missing, now) if is_indexed(job) else Plan(create=[None] * missing)


def _wanted(seen: Seen) -> int:
    spec = seen.job.spec
    parallelism = 1 if spec.parallelism is None else spec.parallelism
    if spec.completions is None:
        return len(seen.active) if seen.succeeded else parallelism
    return max(0, min(parallelism, spec.completions - seen.succeeded))


def _indexes_to_make(seen: Seen, count: int, now: datetime) -> Plan:
    taken = _indexes_of(seen.active) | seen.done | seen.broken
    if replaces_failed_only(seen.job):
        taken = taken | _indexes_of([pod for pod in seen.pods if is_terminating(pod)])
    free = taken.missing(seen.job.spec.completions or 0, count)
    if not limits_indexes(seen.job):
        return Plan(create=free)
    waits = {index: index_wait(seen.waiting.get(index), now) for index in free}
    due = [index for index, pause in waits.items() if not pause]
    return Plan(create=due) if due else Plan(wait=min(waits.values(), default=0.0))


def _indexes_of(pods: Sequence[Pod]) -> Indexes:
    return Indexes.of(index for pod in pods if (index := index_of(pod)) is not None)


def _for_removal(seen: Seen, at_least: int) -> list[Pod]:
    """Return active pods that should go: those without an own index that there is, then as many as asked for."""
    removed: list[Pod] = []
    left = sorted(seen.active, key=_first_to_go)
    if is_indexed(seen.job):
        by_index: dict[int, Pod] = {}
        for pod in left:
            index = index_of(pod)
            if index is None or not _is_valid(seen.job, pod):
                removed.append(pod)
                continue
            if index in by_index:
                removed.append(by_index[index])
            by_index[index] = pod
        kept = {pod.metadata.uid for pod in by_index.values()}
        left = [pod for pod in left if pod.metadata.uid in kept]
    return [*removed, *left[: max(0, at_least - len(removed))]]


def _first_to_go(pod: Pod) -> tuple[bool, int, bool, float, int, float]:
    """Sort pods by it: those that have got least far first, then the youngest."""
    ready = next((found for found in pod.status.conditions if found.type == "Ready"), None)
    since = ready.last_transition_time if ready is not None and ready.status == "True" else None
    return (
        bool(pod.spec.node_name),
        _PHASES.get(pod.status.phase or "", 0),
        is_ready(pod),
        _youth(since),
        -max_restarts(pod),
        _youth(pod.metadata.creation_timestamp),
    )


def _youth(moment: str | None) -> float:
    return float("-inf") if moment is None else -times.parse(moment).timestamp()
