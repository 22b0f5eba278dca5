"""Stateful sets: which pods to make, to delete and to put right, in which order, and what the status says. Pure.

`plan` is given the set, its pods and its revisions and returns batches of work. One plan goes as far as it can without
seeing what its work has brought about; that brings about the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from pilothouse.kinds import intstr
from pilothouse.kinds.structs import ControllerRevision, Pod, StatefulSet, replace
from pilothouse.kinds.structs.apps import StatefulSetStatus
from pilothouse.kinds.structs.core_pods import PodTemplateSpec

from .pods import available_in, is_available, is_finished
from .revisions import surplus, template_of
from .statefulsets_claims import ClaimOf, ClaimWork, are_kept, is_stale, work_for
from .statefulsets_pods import (
    first_ordinal,
    has_identity,
    has_storage,
    in_range,
    is_running_and_ready,
    is_unavailable,
    new_pod,
    ordinal_of,
    revision_of,
    wanted_replicas,
    with_identity,
    with_storage,
)

__all__ = ["Batch", "Plan", "Work", "history_surplus", "is_told", "next_check", "plan"]

_NO_CLAIMS: Final = ClaimWork()


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done about one pod: make it, put it right, delete it, or see to its claims alone.

    pod: as it is to be; for `delete` and `claims` as it is.
    """

    action: Literal["create", "update", "delete", "claims"]
    pod: Pod
    claims: ClaimWork = _NO_CLAIMS


@dataclass(frozen=True, slots=True)
class Batch:
    """Work on several pods, one after another, or together with more as it goes well."""

    works: Sequence[Work]
    together: bool


@dataclass(slots=True)
class Plan:
    """What to do, batch by batch until one fails, and the status as it should be; again: seconds until a look."""

    status: StatefulSetStatus
    batches: list[Batch] = field(default_factory=list)
    again: float | None = None


def plan(
    obj: StatefulSet,
    pods: Sequence[Pod],
    current: ControllerRevision,
    update: ControllerRevision,
    claim_of: ClaimOf,
    now: datetime,
    *,
    collision_count: int = 0,
) -> Plan:
    """Return the next step of a set.

    pods: those that it controls. current, update: the revisions that it comes from and goes to. Raises StructError
    for a revision that keeps no template.
    """
    return _Planner(obj, pods, current, update, claim_of, now, collision_count).plan()


def is_told(obj: StatefulSet, status: StatefulSetStatus) -> bool:
    """Whether a set's status says what this one does."""
    present = replace(
        obj.status,
        collision_count=status.collision_count,
        conditions=status.conditions,
        observed_generation=max(obj.status.observed_generation, status.observed_generation),
    )
    return present == status and obj.status.observed_generation >= status.observed_generation


def next_check(obj: StatefulSet, pods: Iterable[Pod], status: StatefulSetStatus, now: datetime) -> float | None:
    """Return in how many seconds the next ready pod becomes available, None where none is waiting."""
    seconds = obj.spec.min_ready_seconds
    if not seconds or status.ready_replicas == status.available_replicas:
        return None
    waits = [available_in(pod, seconds, now) for pod in pods]
    return min((wait for wait in waits if wait), default=float(seconds))


def history_surplus(
    obj: StatefulSet,
    pods: Iterable[Pod],
    revisions: Sequence[ControllerRevision],
    in_use: Iterable[ControllerRevision],
) -> list[ControllerRevision]:
    """Return the revisions that history does not keep. in_use: those that the set comes from and goes to."""
    live = {each.metadata.name for each in in_use} | {revision_of(pod) for pod in pods}
    idle = [each for each in revisions if each.metadata.name not in live]
    return surplus(idle, obj.spec.revision_history_limit, idle=idle)


class _Planner:
    """One plan in the making."""

    def __init__(
        self,
        obj: StatefulSet,
        pods: Sequence[Pod],
        current: ControllerRevision,
        update: ControllerRevision,
        claim_of: ClaimOf,
        now: datetime,
        collision_count: int,
    ) -> None:
        self.obj, self.pods, self.claim_of, self.now = obj, pods, claim_of, now
        self.current, self.update = current.metadata.name, update.metadata.name
        self.templates = template_of(current), template_of(update)
        self.collision_count = collision_count
        self.ordered = obj.spec.pod_management_policy != "Parallel"
        self.condemned = sorted(
            (pod for pod in pods if ordinal_of(pod) >= 0 and not in_range(obj, ordinal_of(pod))),
            key=ordinal_of,
            reverse=True,
        )
        self.missing: set[int] = set()
        self.replicas = self._replicas()
        self.made = Plan(self._status())

    def plan(self) -> Plan:
        if self.obj.metadata.deletion_timestamp is None:
            taken = self._run(self.replicas, self._keep) and self._run(self.condemned, self._see_to_claims)
            if taken and self._run(self.condemned, self._let_go):
                self._roll()
        self.made.status = self._completed(self.made.status)
        self.made.again = next_check(self.obj, self.pods, self.made.status, self.now)
        return self.made

    def _replicas(self) -> list[Pod]:
        """Return a pod for each ordinal, from the first on, new ones where there are none."""
        found = {ordinal_of(pod): pod for pod in self.pods}
        first = first_ordinal(self.obj)
        ordinals = range(first, first + wanted_replicas(self.obj))
        self.missing = {ordinal for ordinal in ordinals if ordinal not in found}
        return [found.get(ordinal) or self._new(ordinal) for ordinal in ordinals]

    def _new(self, ordinal: int) -> Pod:
        strategy, first = self.obj.spec.update_strategy, first_ordinal(self.obj)
        rolling = strategy.rolling_update
        if rolling is not None:
            old = ordinal < first + (rolling.partition or 0)
        else:
            old = strategy.type == "RollingUpdate" and ordinal < first + self.obj.status.current_replicas
        template: PodTemplateSpec = self.templates[0 if old else 1]
        return new_pod(self.obj, template, self.current if old else self.update, ordinal)

    # Status

    def _status(self) -> StatefulSetStatus:
        seconds = self.obj.spec.min_ready_seconds
        ready = [pod for pod in self.pods if is_running_and_ready(pod)]
        staying = [revision_of(pod) for pod in self.pods if pod.metadata.deletion_timestamp is None]
        return StatefulSetStatus(
            observed_generation=self.obj.metadata.generation,
            replicas=len(self.pods),
            ready_replicas=len(ready),
            available_replicas=sum(is_available(pod, seconds, self.now) for pod in ready),
            current_replicas=staying.count(self.current),
            updated_replicas=staying.count(self.update),
            current_revision=self.current,
            update_revision=self.update,
            collision_count=self.collision_count,
        )

    def _completed(self, status: StatefulSetStatus) -> StatefulSetStatus:
        """Say that a rolling update is complete once all pods are of the new revision and ready."""
        counts = (status.updated_replicas, status.ready_replicas, status.replicas)
        wanted = wanted_replicas(self.obj)
        if self.obj.spec.update_strategy.type != "RollingUpdate" or counts != (wanted, wanted, wanted):
            return status
        return replace(status, current_replicas=status.updated_replicas, current_revision=status.update_revision)

    # Steps: each gives work for one pod, and whether an ordered set may go on to the next

    def _run(self, pods: Sequence[Pod], step: Callable[[Pod], tuple[Work | None, bool]]) -> bool:
        """Plan a step for all pods; say whether what follows is to be planned as well."""
        works: list[Work] = []
        goes_on = True
        for pod in pods:
            work, goes_on = step(pod)
            if work is not None:
                works.append(work)
            if self.ordered and not goes_on:
                break
        if works:
            self.made.batches.append(Batch(works, together=not self.ordered))
        return goes_on or not self.ordered

    def _keep(self, pod: Pod) -> tuple[Work | None, bool]:
        ending = pod.metadata.deletion_timestamp is not None
        if is_finished(pod):
            return (None if ending else Work("delete", pod)), False
        if ordinal_of(pod) in self.missing:
            if is_stale(self.obj, pod, self.claim_of):
                return None, False
            return Work("create", pod, work_for(self.obj, pod, self.claim_of)), False
        if pod.status.phase == "Pending" and (claims := work_for(self.obj, pod, self.claim_of)):
            return Work("claims", pod, claims), False
        if self.ordered and (ending or not self._is_well(pod)):
            return None, False
        return self._put_right(pod), True

    def _is_well(self, pod: Pod) -> bool:
        return is_running_and_ready(pod) and is_available(pod, self.obj.spec.min_ready_seconds, self.now)

    def _put_right(self, pod: Pod) -> Work | None:
        fits, stored = has_identity(self.obj, pod), has_storage(self.obj, pod)
        if fits and stored and are_kept(self.obj, pod, self.claim_of):
            return None
        claims = work_for(self.obj, pod, self.claim_of, create=not stored)
        changed = pod if fits else with_identity(pod)
        return Work("update", changed if stored else with_storage(self.obj, changed), claims)

    def _see_to_claims(self, pod: Pod) -> tuple[Work | None, bool]:
        claims = work_for(self.obj, pod, self.claim_of, create=False)
        return (Work("claims", pod, claims) if claims else None), True

    def _let_go(self, pod: Pod) -> tuple[Work | None, bool]:
        if pod.metadata.deletion_timestamp is not None:
            return None, False
        if self.ordered and not self._is_well(pod) and pod is not self._first_unavailable():
            return None, False
        return Work("delete", pod), False

    def _first_unavailable(self) -> Pod | None:
        every = [*self.replicas, *reversed(self.condemned)]
        return next((pod for pod in every if is_unavailable(pod, self.obj.spec.min_ready_seconds, self.now)), None)

    # Rolling

    def _roll(self) -> None:
        strategy = self.obj.spec.update_strategy
        if strategy.type == "OnDelete":
            return
        rolling = strategy.rolling_update
        partition = (rolling.partition or 0) if rolling is not None else 0
        if rolling is not None and rolling.max_unavailable is not None:
            most = max(1, intstr.scaled(rolling.max_unavailable, len(self.replicas), round_up=False))
            old = self._up_to(most, partition)
        else:
            old = self._one(partition)
        if old:
            self.made.batches.append(Batch([Work("delete", pod) for pod in old], together=False))
            count = self.made.status.current_replicas - len(old)
            self.made.status = replace(self.made.status, current_replicas=count)

    def _one(self, partition: int) -> list[Pod]:
        """Return the last pod of another revision, none as long as one behind it is not available."""
        for pod in reversed(self.replicas[partition:]):
            if self._is_outdated(pod):
                return [pod]
            if self._is_missed(pod):
                return []
        return []

    def _up_to(self, most: int, partition: int) -> list[Pod]:
        """Return the last pods of another revision, as many as may be unavailable besides those that are."""
        room = most - sum(map(self._is_missed, self.replicas))
        outdated = [pod for pod in reversed(self.replicas[partition:]) if self._is_outdated(pod)]
        return outdated[: max(0, room)]

    def _is_outdated(self, pod: Pod) -> bool:
        if ordinal_of(pod) in self.missing or is_finished(pod) or pod.metadata.deletion_timestamp is not None:
            return False  # nothing to delete, or deleted already
        return revision_of(pod) != self.update

    def _is_missed(self, pod: Pod) -> bool:
        return is_unavailable(pod, self.obj.spec.min_ready_seconds, self.now)
