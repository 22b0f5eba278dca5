"""Which of a job's pods can be counted now, and the status that says so before they lose their finalizers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pilothouse.kinds.structs import Pod, replace
from pilothouse.kinds.structs.batch import JobCondition, JobStatus, UncountedTerminatedPods

from .jobs import Seen, is_indexed, is_tracked, limits_indexes
from .jobs_indexes import index_of
from .jobs_policies import has_failed, judge
from .jobs_status import MAX_UNCOUNTED, Counts, counted, final_condition, with_target

__all__ = ["Tracking", "track"]


@dataclass(frozen=True, slots=True)
class Tracking:
    """status: to be written first. release: pods that lose their finalizers then. end: what the job ends with after.

    waiting: UIDs of the pods that have their finalizers now.
    """

    status: JobStatus
    release: list[Pod]
    waiting: set[str]
    end: JobCondition | None


def track(seen: Seen, status: JobStatus, counts: Counts, end: JobCondition | None, now: datetime) -> Tracking:
    """Return what is to be counted. status: as it is so far. end: the condition that ends the job, see `jobs.end_of`.

    At most 500 pods are counted at a time; a job does not end before all are.
    """
    tracked = [pod for pod in seen.pods if is_tracked(pod)]
    waiting = {pod.metadata.uid for pod in tracked}
    status = counted(replace(status, active=counts.active, ready=counts.ready, terminating=counts.terminating), waiting)
    counting = _Counting(seen, status, end)
    is_full = counting.go_through(sorted(tracked, key=_index_order) if is_indexed(seen.job) else tracked)
    status = replace(status, uncounted_terminated_pods=counting.uncounted())
    if is_indexed(seen.job):
        broken = str(seen.broken) if limits_indexes(seen.job) else None
        status = replace(status, succeeded=len(seen.done), completed_indexes=str(seen.done), failed_indexes=broken)
    final = None if is_full else final_condition(end, now)
    return Tracking(with_target(status, end), counting.release, waiting, final)


class _Counting:
    """Goes through pods that have their finalizers and sorts them into the uncounted ones."""

    def __init__(self, seen: Seen, status: JobStatus, end: JobCondition | None) -> None:
        uncounted = status.uncounted_terminated_pods or UncountedTerminatedPods()
        self.release: list[Pod] = []
        self._seen = seen
        self._job = seen.job
        self._end = end
        self._well = [*uncounted.succeeded]
        self._ill = [*uncounted.failed]
        self._known = {*uncounted.succeeded, *uncounted.failed}
        self._known_ill = {*uncounted.failed}
        self._indexes = 0

    def uncounted(self) -> UncountedTerminatedPods:
        return UncountedTerminatedPods(succeeded=self._well, failed=self._ill)

    def go_through(self, pods: list[Pod]) -> bool:
        """Sort the pods; return whether there is no room for more."""
        for pod in pods:
            if not self._may_release(pod):
                continue
            self.release.append(pod)
            self._count(pod)
            if len(self._well) + len(self._ill) + self._indexes >= MAX_UNCOUNTED:
                return True
        return False

    def _may_release(self, pod: Pod) -> bool:
        if self._job.metadata.deletion_timestamp is not None or self._end is not None:
            return True
        if pod.status.phase == "Succeeded":
            return True
        if not has_failed(pod, self._job):
            return False
        index = index_of(pod)
        kept = None if index is None else self._seen.waiting.get(index)
        return kept is None or kept.metadata.uid != pod.metadata.uid

    def _count(self, pod: Pod) -> None:
        uid, indexed = pod.metadata.uid, is_indexed(self._job)
        if pod.status.phase == "Succeeded" and uid not in self._known_ill:
            if indexed:
                self._indexes += 1
            elif uid not in self._known:
                self._well.append(uid)
            return
        # When a job ends without success, all pods that have not ended count as failed.
        ends_ill = self._end is not None and self._end.type != "SuccessCriteriaMet"
        if uid in self._known_ill or not (has_failed(pod, self._job) or ends_ill):
            return
        index = index_of(pod)
        if indexed and (index is None or index >= (self._job.spec.completions or 0)):
            return
        if judge(self._job.spec.pod_failure_policy, pod).counts:
            self._ill.append(uid)


def _index_order(pod: Pod) -> int:
    index = index_of(pod)
    return -1 if index is None else index
